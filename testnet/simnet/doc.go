// Package simnet is a mesh of hundreds of nodes in one process: the production gossip and roster over a
// simulated network, in virtual time.
//
// Nouns: Network (addresses, loss, delay, partitions, by a seed), Office (gossiping nodes on a Network),
// Node (one of them), Forger (somebody with gossip's key and no certificate, who writes packets by hand).
//
// Run it within testing/synctest: then eight hours pass in a moment, and a scenario says "within 10 s" and
// means it, on any machine. The seed decides which packets are lost and how late the others come; the order
// in which goroutines run is Go's own, so that a seed gives the same weather, not the same run.
//
// Promises:
//   - Packets and streams behave as UDP and TCP: loss and reordering for packets, a dial that hangs for a
//     partition and is refused where nobody listens.
//   - What a node sent and received is counted, with the headers real packets would have.
//   - Office.Close ends every node and goroutine.
//
// What it does not do: no libp2p, no facts, no processes; testnet/lab has those, in real time.
//
// Start reading at network.go, Network; then office.go. The test that shows it whole is TestOffice.
package simnet
