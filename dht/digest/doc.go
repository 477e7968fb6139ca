// Package digest is the one spelling of content identity inside buildmesh:
// a hash, a size and the function that made the hash, as a comparable value.
//
// Nouns: Function (SHA256 or BLAKE3), Digest (a validated value), Hasher (bytes in, Digest out).
//
// Promises:
//   - A Digest that exists is valid: 32 hash bytes, size >= 0, a known function. Raw strings and
//     protobuf messages are turned into Digests at the edge (FromProto, Parse) and nowhere else.
//   - Two Digests are the same content exactly when they compare equal with ==; the same hash with
//     another size, or made by another function, is another Digest.
//   - Values are immutable and safe for concurrent use; no function here allocates more than its result.
//
// What it does not do: it knows no store, no resource names and no CIDs, and never reads a file.
//
// Functions longer than 32 bytes of hash (SHA384, SHA512) are not represented; an endpoint that
// advertises only SHA256 and BLAKE3 refuses them with ErrUnsupported.
//
// Source: build.bazel.remote.execution.v2, messages Digest and DigestFunction.
//
// Start reading at digest.go, Parse. The test that shows it whole is TestParse.
package digest
