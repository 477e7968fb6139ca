// Package peer is who a node is: an Ed25519 key pair and the peer id its public half spells.
//
// Nouns: Identity (the key pair of this node), ID (a peer's public key as a comparable value).
//
// The text form of an ID is the one libp2p gives an Ed25519 key: base58 of the identity multihash of
// the protobuf-encoded public key ("12D3KooW..."). It carries the whole public key, so who knows an
// ID can verify signatures, and a later transport needs no second name for a peer.
//
// Promises:
//   - Load makes the key at the first start, readable by its owner only, and gives the same Identity
//     ever after. It refuses a key file that others can read.
//   - Of two processes that start together, both end with the same key.
//   - An ID that exists is valid: Parse refuses anything that is not 32 bytes of Ed25519 public key.
//
// What it does not do: no certificates and no trust; a peer id says who, not whether to believe.
//
// Sources: libp2p peer-ids specification; multihash; RFC 8032.
//
// Start reading at identity.go, Load. The test that shows it whole is TestLoad.
package peer
