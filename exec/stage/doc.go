// Package stage turns an input root into directories an overlay can use as its read-only lower layers.
//
// A tree of 10,000 files costs tens of milliseconds to lay out on disk and a millisecond to use
// again, so what was laid out is kept. Two input roots are seldom equal but mostly alike (one source
// file differs, the toolchain does not); therefore a tree is cut into layers:
//
//	plan:  walk the tree bottom up; a directory whose nodes, without those already cut off below it,
//	       number at least the cut (128, more for very large trees) becomes a layer of its own
//	stage: for each layer of the plan: there -> take it; being built -> wait for it; else build it
//	build: directories, then files, then symbolic links, in a private temporary directory; fixed
//	       times, modes and owner; renamed into place
//	root:  the layers topmost first, parents before children, each holding its subtree at its full path
//
// Nouns: Cache (all layers on disk), Root (the layers of one input root, held until Release), layer
// (one directory, named after what it contains), Incident (a layer whose bytes changed on disk).
//
// Promises:
//   - A layer is visible only when complete, and belongs to exactly the content, times, modes and owner
//     its name was made from. kill -9 leaves nothing half; after a power cut all layers are dropped
//     unless Close had synced them.
//   - A layer is built once however many callers ask for it at a time. A layer in use is never removed.
//   - Every blob that is missing for any layer of a root is in one *tree.MissingError.
//   - No symbolic link is followed while building: links are made last, beneath directories made before.
//   - Every file, directory and link has mtime tree.ModTime unless its node properties say otherwise; files
//     are 0444 or 0555, or as Modes says, directories 0755; special bits never appear. What a directory's SubtreeReadOnly
//     asks is kept by the sandbox, so that both kinds of use share layers.
//   - All methods are safe for concurrent use. Close waits for everything the Cache started.
//
// A small file that an earlier layer has at the same path is a hardlink of that one: what roots have in common costs
// no new inode. Larger files may be hardlinks into the blob store. Their shared inode is given tree.ModTime and the configured
// owner, always the same values; a file that wants others is copied, and so is one whose inode a layer of
// other Modes has. Hence the layers may only ever be
// lower directories of an overlay, or be copied: never a writable root.
//
// What it does not do: it mounts nothing, fetches nothing, and verifies a sample of files only when a
// Root is released, not when it is used.
//
// Start reading at cache.go, Stage. The test that shows it whole is TestStage.
package stage
