// Package image turns container images, pinned by digest, into root trees that actions run in.
//
// Nouns: Reference (a container-image property, parsed), Registry (where images come from), Catalog
// (the images imported so far), Root (an image in use: tree, environment, user), layer (one tar archive
// over those before it).
//
// Use, in steps:
//
//  1. parse the reference; a floating one is refused with the pinned form in the message
//  2. known from an earlier import and still complete in the blob store: pin it, done
//  3. else import, once however many actions wait: manifest, configuration, layers from the lowest up,
//     each checked against its digest before anything is believed; blobs go to the store as they come
//  4. remember digest, root, environment and user in a file that outlives the process
//
// What of an image becomes part of its root: files with their executable bit, directories, symbolic
// links, hard links as equal files; the environment, and the user when it is a number or stands in the
// image's /etc/passwd. Left out: owners, times, set-id bits, extended attributes, devices, sockets and
// pipes, and whatever is below /proc, /dev, /tmp and /build: there the sandbox mounts its own. An image
// without /etc/hosts gets one that knows localhost. Entrypoint and working directory are not used.
//
// Promises:
//   - The same digest on the same architecture gives the same root on every machine.
//   - Nothing an archive says reaches outside of the tree: trees are built in memory, symbolic links on
//     the way to an entry are followed inside it, names are checked as those of clients are.
//   - Bytes unpacked, entries, layers and time are bounded (Options); a compressed bomb ends at the bound.
//   - A Root's blobs stay in the store until Release and Options.Linger longer.
//   - Errors are *Error, whose Err wraps one of the sentinels in errors.go, ctx's, or the store's.
//   - Everything is safe for concurrent use. Close ends imports under way and waits for them.
//
// What it does not do: it opens no socket (a Registry does), keeps no layers, and does not run anything.
//
// Source: OCI image-spec 1.1, manifest.md, config.md, layer.md; Docker image manifest v2, schema 2.
//
// Start reading at catalog.go, Use; then layer.go. The test that shows it whole is TestUse.
package image
