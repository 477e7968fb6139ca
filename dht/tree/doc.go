// Package tree turns a client's Directory and Tree messages into validated values.
//
// Nouns: Directory (one message, checked), Tree (everything reachable from a root, each distinct
// Directory once), Totals (what a Directory amounts to when it is laid out on a disk), Limits,
// Builder (the other direction: values into canonical messages).
//
// Load, in steps:
//
//  1. fetch the directories of one level in batches, those that were not met before only
//  2. decode and check each one; note what is missing and go on
//  3. when no level is left: everything missing in one *MissingError, or else
//  4. compute Totals from the leaves up, each distinct directory once, and compare with Limits
//
// Promises:
//   - A Directory that exists has only names that are safe to create below one directory: not
//     empty, not "." or "..", no slash, no NUL, UTF-8, at most 255 bytes, no name twice among files,
//     directories and symlinks together. Its digests are well formed.
//   - A Tree is complete, has no cycle, and is within Limits when fully expanded. A small graph that
//     expands to a huge tree is found by arithmetic on memoised totals, never by expanding it.
//   - Every error about what a client sent wraps ErrInvalid and names path and reason; a missing
//     directory is a *MissingError that lists all that could be found missing.
//   - Values are never changed after they were made and may be shared between goroutines.
//   - The encoded bytes of a Directory are kept as they came, so TreeProto has the digests the client
//     knows even if the client does not encode canonically.
//
// What it does not do: it does not decide whether absolute symlink targets, unsorted entries or a
// node property are acceptable (entries may be unsorted, properties are handed on as they are), does
// not follow symlinks, does not look whether files exist, and does not hash what a Getter returns:
// the store has done so.
//
// Source: build.bazel.remote.execution.v2, messages Directory, Tree and OutputDirectory.
//
// Start reading at load.go, Load. The test that shows it whole is TestLoad.
package tree
