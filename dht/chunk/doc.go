// Package chunk cuts a stream of bytes where its content says so: equal stretches of two large blobs
// become equal chunks wherever they stand.
//
// Nouns: Params (average size and seed), Chunker (a reader being cut).
//
// Promises:
//   - Cuts are those of FastCDC 2020 with normalisation 2 as the protocol defines it in
//     FastCdc2020Params: minimum a quarter of the average, maximum four times the average, so that
//     every conforming client and server cuts alike.
//   - The chunks in order are the stream. All but the last have between minimum and maximum bytes.
//   - Cuts do not depend on how the reader portions its bytes.
//   - At most one maximal chunk is held in memory.
//
// A Chunker is not safe for concurrent use.
//
// What it does not do: it hashes and stores nothing, and does not decide which blobs are worth it
// (the protocol advises against chunking blobs below the maximum).
//
// Source: Wen Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based
// Storage Systems", IEEE TPDS 2020; build.bazel.remote.execution.v2, message FastCdc2020Params.
//
// Start reading at chunk.go, Chunker.Next. The test that shows it whole is TestChunker; the official
// vectors are in vectors_test.go.
package chunk
