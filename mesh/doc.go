// Package mesh is the room of people and their machines. It holds no code itself.
//
//	peer       who a node is: its Ed25519 key and the peer id made from it
//	roster     who belongs to the mesh, and how each is
//	transport  calls between members, over control and bulk connections
//	trust      who may belong: certificates, charters, invites, and the verdicts on them
//
// What the room does not do: it knows no blobs and no actions.
//
// A node stands alone so far: it has an identity, and nobody yet to show it to.
//
// Start reading at mesh/peer.
package mesh
