// Package casfake is the blob store of package cas in memory, for tests.
//
// Nouns: Store, with the methods of cas.Store and the same meaning: verified writes, leases, pins,
// least-recently-used eviction under a byte limit, the empty blob always present.
//
// Promises: safe for concurrent use; passes the same suite as cas.Store (package castest). Methods
// beside those of cas.Store are for tests: Lose removes a blob behind its users' backs, Damage
// changes stored bytes, FailWith makes writes fail.
//
// What it does not do: it keeps nothing on disk, knows no free disk space, and its byte count has
// no framing: 100 bytes of content are 100 bytes. Blobs are evicted one by one in exact order of
// use, which the real store only approximates.
//
// Start reading at store.go, New. The test that shows it whole is TestConformance.
package casfake
