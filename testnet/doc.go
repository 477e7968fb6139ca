// Package testnet holds the rooms in which buildmesh is tried as a whole; it has no code of its own.
//
// Rooms: conformance (claims about any Remote Execution server, checked over gRPC alone), wrong (an
// in-memory server that is right until told otherwise, for trying the claims on), clients (real
// build tools), bench (measurements beside other servers), lab (many real nodes, each on a machine's
// network of its own), sim (placement on simulated meshes of up to 10,000 nodes), simnet (gossip among
// hundreds of nodes in virtual time), chaos (builds while nodes are killed, stopped and cut off), scenario
// (the language in which claims about a mesh are told), scenarios (the claims), stranger and rogue
// (adversaries without and with a seat in the mesh), sample (actions whose outputs everybody can work out),
// imports (which room may import which).
//
// Promise: nothing under testnet is imported by production code.
//
// Start reading at conformance/doc.go.
package testnet
