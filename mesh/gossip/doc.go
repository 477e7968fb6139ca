// Package gossip keeps every node's roster current without a server: SWIM membership (Das, Gupta, Motivala
// 2002, with the Lifeguard additions of Dadgar, Phillips, Currey 2018) as hashicorp/memberlist has it, and
// what an office of laptops needs beside it.
//
// Nouns: Gossip (this node's part in it), Admission (what trust decides: whose certificate counts), card (what
// a node tells of itself in its metadata, signed), ring (the keys gossip is encrypted with, by epoch), boot
// (one start: a node's name in gossip is its peer id and its boot).
//
// The four additions:
//
//	rejoin    every 10 s up to 3 of the members gossip has lost, static seeds and what discovery found; without
//	          them a partition longer than 30 s would never heal (rejoin.go)
//	wake      after a sleep it rejoins at once instead of when the next timer comes (wake.go)
//	boot      a restarted node is not mistaken for its former self, nor needs it outbid what was said of that
//	address   after an address change gossip is made anew under a new boot (address.go)
//
// Promises:
//   - Nobody enters the roster without a certificate that Admission accepts and a card that the certificate's
//     own key signed for this name and address: a gossip key alone forges no member and moves none.
//   - What gossip says of a member's death is a claim for mesh/roster to weigh against own evidence, no more.
//   - A stranger learns the label (a hash of the mesh) and nothing else; what he sends costs a bounded number
//     of connections, goroutines and bytes (gate.go).
//   - Close waits for every goroutine of its own; memberlist's last ones end by themselves within ten seconds.
//     Steady state sends no log line above debug.
//
// What it does not do: it finds nobody by itself (mesh/discover), carries no load or facts (mesh/facts), and
// is no transport for anything else.
//
// Start reading at gossip.go, New. The test that shows it whole is TestOffice in testnet/simnet.
package gossip
