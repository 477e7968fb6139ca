// Package mesh is the room of people and their machines. It holds no code itself.
//
//	peer       who a node is: its Ed25519 key and the peer id made from it
//	roster     who belongs to the mesh, and how each is
//	gossip     keeps the roster current without a server
//	health     looks after the members whose state is in doubt
//	buffer     what calls read and write with, used again
//	transport  calls between members, over control and bulk connections
//	trust      who may belong: certificates, charters, invites, and the verdicts on them
//	member     this node's own place in a mesh, on disk
//	hello      the first words of two nodes: members greet, a joiner is admitted
//
// What the room does not do: it knows no blobs and no actions.
//
// Discovery and gossip are not here yet: a node meets whom it joined and who joined through it.
//
// Start reading at mesh/peer.
package mesh
