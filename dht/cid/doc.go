// Package cid spells digests as CIDs, and makes of what a node has the keys the mesh's indexes know.
//
// Nouns: Keyer (holds the mesh's secret), Key (a keyed hash of what is looked for: of a blob's CID, or
// of an action together with the root its result was made under).
//
// Promises:
//   - Of and Digest are each other's inverse: CID version 1, codec raw, multihash sha2-256 or blake3.
//     A CID does not carry the size; who turns one back must know it.
//   - A Key tells nothing to those who do not have the mesh's secret: neither what it is of nor
//     whether two meshes hold the same thing. Blobs and results never share a Key.
//   - Values are immutable, a Keyer is safe for concurrent use.
//
// What it does not do: it knows no index and no store.
//
// Sources: the CID specification (multiformats/cid); multihash; BLAKE3, sections 2.3 and 2.6 (keyed
// hashing and key derivation).
//
// Start reading at key.go, NewKeyer. The test that shows it whole is TestKeys.
package cid
