// Package asset remembers under which names content is known, and keeps that content.
//
// Nouns: Asset (names, content, what it refers to, times), Name (one URI with qualifiers: what an asset
// is found by), Index (all assets, durable), closure (every blob that an asset needs: its content, the
// trees below its directories, what it refers to), hold (pins on a closure, shared between assets).
//
// Push, in steps:
//
//  1. load the trees of the asset; everything absent is told at once in a *tree.MissingError
//  2. pin the closure; directories that other assets hold already are only counted
//  3. write one record for each URI, then make the asset visible
//  4. let the least recently used assets go until the limits are kept
//
// Promises:
//   - What Fetch gives is complete at that moment. As long as an asset is in the index its closure is
//     pinned in the blob store: it leaves only when it expires, when the limits of Options push it out
//     (least recently used first), or when its content turned out damaged.
//   - What Push acknowledged survives the end of the process at any moment (see package record).
//     After a restart the closures are pinned again in the background, the most recent first; an asset
//     whose content did not survive is forgotten. The order of use is then that of the pushes.
//   - Each name leads to one asset, the last one pushed. An asset of one digest function is not found
//     under another.
//   - Safe for concurrent use; one goroutine, which ends in Close.
//
// Records are kept by dht/record, not in a B+ tree file with transactions: a name is only ever looked
// up whole, and a push then costs two appends (measured 25 to 45 us) where a transaction waits for two
// fsyncs (measured with bbolt: 3.7 ms).
//
// What it does not do: it downloads nothing, does not know which qualifiers mean what, and gives no
// opinion on who may push.
//
// Source: build.bazel.remote.asset.v1, services Fetch and Push.
//
// Start reading at index.go, Index.Push. The test that shows it whole is TestPushedIsFetched.
package asset
