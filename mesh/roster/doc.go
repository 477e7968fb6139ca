// Package roster is who belongs to the mesh and what is known of each: the members, in one place, for
// every room that asks "who is there?".
//
// Nouns: Member (one peer: who it is, where it answers, its state), State (alive, suspect, dead, left),
// claim (what gossip says), evidence (what this node found itself over an authenticated stream), Snapshot
// (all members at one version).
//
// How a state is made of claims and evidence (table.go, judge):
//
//	claim alive, nothing against it              alive
//	claim alive, our own attempt failed          suspect: alive in gossip, but not for us
//	claim dead, we heard from it since           alive for 10 s: own evidence beats gossip
//	claim dead, not yet looked                   suspect, and in Doubtful until someone looks
//	claim dead, our own attempt failed           dead
//	claim dead, nobody looked in time            dead
//	it said goodbye itself, signed               left
//
// Promises:
//   - All methods may be called by any number of goroutines. A Snapshot is never changed after it was given.
//   - Next waits for a change without registering anything: a watcher that goes away leaves nothing behind,
//     one that is slow sees the newest state, not every step.
//   - The members survive a restart (file roster.json in the state directory, replaced atomically). They come
//     back as dead: somebody to look for, nobody to count on. A damaged file is set aside, not an error.
//   - At most MaxMembers are kept; of those gone, the ones gone longest are dropped first.
//
// What it does not do: it speaks to nobody and believes nobody; mesh/gossip brings claims, mesh/health
// evidence, and both only after they checked certificates.
//
// Start reading at member.go, then table.go, judge. The test that shows it whole is TestJudge.
package roster
