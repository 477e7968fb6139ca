// Package collect turns what a finished run left behind into blobs and the output fields of its result.
//
// It sees the run's file system without mounting it: the upper directory of the overlay laid over the
// input tree, with the overlay's marks for removed names and replaced directories. So what the action
// did not touch takes its digest from the input tree, and only what it wrote is read and hashed.
//
//	resolve: every output path, component by component through that view; links are followed inside
//	         the root only
//	scan:    list what is below, counting against Limits; note mode and times before anything moves
//	ingest:  hand files the action wrote to the store, in parallel, each once however many outputs
//	         contain it; copy back what the store lost of the inputs
//	encode:  Directory and Tree messages, node properties, deduplicated, parents first
//
// Nouns: Source (a finished run's files), Limits, OutputError (an output that cannot be represented).
//
// Promises:
//   - When Outputs returns without error, every blob its answer refers to was in the store.
//   - Nothing outside the upper directory and the input tree is ever read, whatever links the action
//     left; the last component of an output path is never followed.
//   - A missing output is left out, without error. A device, socket or named pipe is an OutputError, as
//     is a path that leads out of the root, and, for commands in the old form, an output of the wrong
//     type. Limits exceeded: ErrTooLarge.
//   - Files and directories nobody may read are read all the same, as their owner.
//   - Of a mode only the executable bit is kept, unless unix_mode is asked for.
//
// The upper directory is consumed: its files may be moved into the store, modes inside may change. The
// caller makes sure that no process of the action is alive.
//
// What it does not do: it neither reads stdout and stderr nor sets exit code, times or usage.
//
// Source: build.bazel.remote.execution.v2, Command.output_paths, ActionResult, OutputDirectory; Linux
// Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories" and "userxattr".
//
// Start reading at collect.go, Outputs. The test that shows it whole is TestOutputs.
package collect
