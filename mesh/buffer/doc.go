// Package buffer recycles byte buffers for gRPC.
//
// Nouns: Pool (buffers of a few sizes; the zero value is ready).
//
// Promises:
//   - A buffer holds what its last user left in it: who gets one fills it.
//   - A buffer that no size fits is allocated afresh and not kept.
//   - Safe for concurrent use.
//
// What it does not do: it bounds nothing; the garbage collector takes what is not used.
//
// Start reading at pool.go, Get. The test that shows it whole is TestPool.
package buffer
