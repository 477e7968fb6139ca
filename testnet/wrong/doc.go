// Package wrong is a Remote Execution server in memory that is right by default and wrong on request.
//
// Nouns: Server (blobs, results and executions of one process), Defect (one thing it gets wrong).
//
// Promises:
//   - With None it keeps every rule that package conformance checks.
//   - With a Defect it breaks that rule and works otherwise; the defect's text says what is broken.
//   - It is safe for concurrent use, and Start's stop leaves nothing running.
//
// What it does not do: it forgets all at exit, evicts nothing and isolates nothing. It is a thing
// to test tests with and never a server to build with.
//
// Start reading at defect.go, then server.go, Start. The test that shows it whole is
// TestDefectsAreCaught of package conformance.
package wrong
