// Package action reads an Action and its Command out of the store and checks everything that can be
// checked before a process exists.
//
// Nouns: Action (validated, both messages in one value), Output (a path that the client wants back),
// Limits (what this endpoint accepts).
//
// Decode is, in steps:
//
//  1. fetch and parse the Action: digests, timeout
//  2. fetch and parse the Command: arguments, environment, working directory, outputs, node properties
//  3. parse the platform that counts (the Action's, else the Command's)
//  4. decide whether the input root is meant to be the root file system:
//     the instance it came by, else the property InputRootAbsolutePath, else the heuristic of wholeRoot
//
// Errors are values a caller can tell apart:
//   - *MissingError: blobs the client must upload; always all of them at once. When the Command is
//     absent, the input tree is looked through as well, so that one answer lists everything.
//   - *InvalidError: the message breaks the protocol; it names the field.
//   - *UnsupportedError: an unknown platform property; it names the property.
//   - any other error is the store's own.
//
// Promises: an Action that Decode returned has at least one argument, an environment without
// duplicates, and a working directory and outputs that stay inside the input root by their names.
// An Action is never changed after Decode and may be shared. Decode is safe for concurrent use.
//
// What it does not do: it does not follow symbolic links (exec/collect and the sandbox do), does not
// compare the platform with any machine, and on the ordinary path does not read the input tree:
// whoever loads the tree lists what it lacks with MissingInputs.
//
// Source: build.bazel.remote.execution.v2, messages Action and Command.
//
// Start reading at decode.go, Decode. The test that shows it whole is TestDecodeBuildStream.
package action
