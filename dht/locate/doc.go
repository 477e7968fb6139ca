// Package locate says what a locator is: the answer to "which peers have this?".
//
// Nouns: Locator (announce, find, forget; batches only), Member (a peer that is alive, as the roster
// sees it), Chain (locators asked one after the other), Switch (one of several, chosen by the size of
// the mesh or by configuration), Kind (one of the three real ones), Sizer (chooses the kind for the size of
// the mesh), Sites (the members as one site sees them: everybody near, and of other sites only the bridges
// that speak for them).
//
// Promises, of every Locator (package locatetest holds the suite):
//   - Find answers each key in its place, never with the node itself, and with nobody twice. It is a
//     hint both ways: a peer named may not have it, one that has it may not be named.
//   - What one node announced is found by the others once it has spread; what it forgot is not, once
//     that has. Announcing twice and forgetting what was never announced change nothing.
//   - An error means that nobody could be asked; that some peers did not answer is none.
//   - Safe for concurrent use.
//
// What it does not do: it moves no content and judges no peer.
//
// The three real ones, and when: summary (everyone's filter is here: finding costs no message), onehop
// (full membership, one message), kad (no full membership, several messages). With 64 nodes 40,000 misses took 0.2, 15 and
// 54 s (BenchmarkMisses in node). A member has 4.5 bytes for each result of each member near it: at a site of 250 that have
// 20,000 results each, 22 MB.
//
// Start reading at locate.go. The test that shows it whole is TestConformance in package memory.
package locate
