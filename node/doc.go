// Package node wires one node: it opens what the rooms provide, joins them, serves, and closes it all
// in reverse.
//
// Nouns: Node (everything one node is made of) and its parts: machine (runs actions), meshed (belongs to
// a mesh), content (shares blobs and results with it; a company is what depends on which mesh that is),
// leasing (runs others' actions and has its own run by others), lending (how much of the machine others
// get). Adapters (the adapt_*.go files) are what one room has in the form another room asks for.
//
//	New   lock the directories, open identity, store, results, machine; listen; anything that fails
//	      closes what was opened before it
//	Run   serve until the context ends; then drain: no new calls, those under way may finish within
//	      node.drain; then close, last opened first
//
// Promises:
//   - One node at a time uses a state or a cache directory; a second is refused with the first one's pid.
//   - When New returns, every address is listened on; when Run returns, no goroutine, process or mount
//     of the node is left.
//   - The endpoint and the web listen on loopback only: they know no passwords. What listens beyond it,
//     for other members of the mesh, speaks with nobody who shows no certificate or invite of it.
//   - An action result is found only under the root it was made with: hermetic ones by everyone, those
//     made with this machine's tools under its fingerprint, a client's own under a root of their own.
//
// What it does not do: no algorithm stands here. It decides nothing that configuration does not say.
//
// Start reading at node.go, New and Run. The test that shows it whole is TestLifecycle.
package node
