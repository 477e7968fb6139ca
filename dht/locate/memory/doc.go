// Package memory is a locator in memory, for tests of what is built on locators.
//
// Nouns: Mesh (what all nodes announced), Locator (one node's view of it).
//
// Promises: passes the suite of package locatetest; what is announced is found at once by all.
//
// What it does not do: it sends nothing and forgets nothing by itself.
//
// Start reading at memory.go, New. The test that shows it whole is TestConformance.
package memory
