// Package archive turns trees of the blob store into tars and file trees, and back.
//
// Nouns: tar (the one form that travels), Store (where blobs are), Limits (what is taken in).
//
//	Write   a tree as a tar      Read    a tar as a tree
//	Unpack  a tar into a folder  Pack    a folder as a tar
//	Layout  a tar as an OCI layout      Flatten  an OCI layout, of any layers, as a tar
//
// Promises:
//   - One tree gives one tar, byte for byte, on every machine: entries sorted by path, one time of
//     change, no owner, and of the mode only whether a file may be executed.
//   - Nothing is held in memory but a window of small files: trees larger than memory pass through.
//   - What comes out of Read is a tree that holds together: no path and no symlink leaves its root. An
//     absolute symlink is read from the tree's root. Device nodes, sockets and pipes, paths below a
//     symlink, and what is over the limits are a *RefusedError that names the entry.
//   - Unpack writes below its folder only, whatever the tar says, and never over what is there.
//
// What it does not do: it keeps no owners, times, extended attributes and setuid bits, since trees have
// none, and makes no decision on where things go.
//
// Start reading at write.go, Write; then read.go, Read. The test that shows it whole is TestRoundTrip.
package archive
