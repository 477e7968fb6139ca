// Package lock lets one node at a time use a directory.
//
// Nouns: Lock (held until Close or the end of the process), HeldError (who holds it).
//
// Promises: a lock never outlives its process, however that ended; a refusal names the directory and
// the process that holds it. The file that carries the lock stays behind, holding nothing.
//
// What it does not do: it does not wait, and it does not work on file systems without locks.
//
// Start reading at lock.go, Acquire. The test that shows it whole is TestAcquire.
package lock
