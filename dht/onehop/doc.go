// Package onehop is the locator of meshes whose members all know each other: every key belongs to a few
// members that anyone can compute, so finding takes one message.
//
// Nouns: Index (what others announced to this node), Locator (a node's own announcements, and the way to
// everybody's indexes), replicas (the members a key belongs to: the first R by rendezvous hashing),
// bucket (a part of the key space, for comparing indexes).
//
// How a key is kept where it belongs:
//  1. Announce sends it to its R replicas among the members that have been alive for Settled.
//  2. When the members change, what moved is announced anew: at once to those that came, after
//     Grace when some went, since most come back; these are told what was announced meanwhile.
//  3. Everything is announced again every half TTL; records that were not are dropped.
//  4. Now and then two members compare sums of the buckets both are responsible for, and the one that
//     asked takes what it lacks.
//
// Promises:
//   - Find asks the first replica of each key in one message a member, then the next for what had no
//     answer in Budget or none at all; it takes R times Budget at most.
//   - One peer can have MaxPerPeer records noted here and no more; a key has the MaxProviders that
//     announced last.
//   - A peer is told of keys only that it asks for, or that it is responsible for itself.
//   - Safe for concurrent use. Run owns every goroutine.
//
// What it does not do: it does not know whether a provider really has what it announced.
//
// Sources: Gupta, Liskov, Rodrigues, One Hop Lookups for Peer-to-Peer Overlays, HotOS 2003; Thaler and
// Ravishankar, Using Name-Based Mappings to Increase Hit Rates, 1998 (rendezvous hashing).
//
// Start reading at locator.go, Find. The test that shows it whole is TestConformance.
package onehop
