// Package actioncache keeps action results, and gives one only if everything it refers to can be read.
//
// Nouns: Key (an action and the Root it ran on), Root (what the action could see besides its inputs:
// nothing, the client's machine, or a host by its fingerprint), Cache, references (every blob a
// result needs), memory (results recently found complete).
//
// Get, in steps:
//
//  1. In memory, nothing left the blob store since the last check, and that was not long ago: a hit.
//  2. In memory otherwise: ask the store for all references again.
//  3. Not in memory: read the record, decode it, expand output directories (Tree messages, and
//     Directory messages below a root digest), ask the store for all references.
//  4. All present: remember and return. Anything absent: ErrNotFound; the record stays, since the
//     blobs may come back.
//
// Promises:
//   - A hit is complete at that moment: output files, Tree messages with every file in them, every
//     Directory and file below a root_directory_digest, stdout and stderr; and the lifetimes of all of
//     them were extended no longer than Options.TouchEvery ago.
//   - What Put acknowledged survives the end of the process at any moment (see package record). A
//     damaged, foreign or future record is a miss, never a wrong result.
//   - A result is stored as the exact bytes of its deterministic encoding, in an envelope with version,
//     action, root and time, so that it can be signed. Results with a non-zero exit code are refused.
//   - Bounded: records by bytes on disk, least recently used first out; memory by Options.MaxMemory.
//   - Safe for concurrent use. A Get that began before a Put may give the old result, one that began
//     after it never does.
//
// What it does not do: it holds no blobs and keeps none alive but by asking for them, does not decide
// which Root a caller may read, and does not know do_not_cache.
//
// Source: build.bazel.remote.execution.v2, service ActionCache, message ActionResult.
//
// Start reading at cache.go, Cache.Get. The test that shows it whole is TestHitIsComplete.
package actioncache
