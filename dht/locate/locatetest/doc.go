// Package locatetest is the suite every locator passes.
//
// Nouns: World (some nodes' locators, joined), Opener (makes one).
//
// Promises: a locator that passes keeps what package locate promises of all of them.
//
// What it does not do: it measures nothing, and does not fail peers; each implementation's own tests do.
//
// Start reading at suite.go, Run. The test that shows it whole is TestConformance in package memory.
package locatetest
