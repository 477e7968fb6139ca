// Package castest is the one suite of what a blob store promises, run on every implementation.
//
// Nouns: Store (all methods of cas.Store, grouped by who calls them), Opener (makes an empty store
// for one test), Clock (time that moves only when told).
//
// Promises: Run calls the Opener once for each test and closes what it opened; it needs no network
// and no more than a few MiB.
//
// What it does not do: crashes, full disks and damaged files are tests of package cas, since only a
// store on disk knows them.
//
// Start reading at suite.go, Run. The test that shows it whole is casfake's TestConformance.
package castest
