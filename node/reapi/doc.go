// Package reapi is the node's Remote Execution endpoint: the gRPC server, its services for content,
// action results and capabilities, and what every other service of the endpoint shares.
//
// Nouns: Server (listeners, codec, what is around every call), Resource (a parsed ByteStream name),
// Metadata (who asks, from the request header), Status (an error as a gRPC status), Uploads (partial
// uploads that may be resumed), Blobs and Results (what is behind the endpoint), Observer (counts
// calls), Features and Limits (what is offered, and how much).
//
// Promises:
//   - gRPC codes and their details are made in one table, Status; services return ordinary errors.
//   - Capabilities are derived from what works; no method answers UNIMPLEMENTED.
//   - Digests, names and offsets are validated at the edge; what comes out malformed goes back as
//     INVALID_ARGUMENT with the field's name. Messages coded by hand accept, refuse and mean what
//     protobuf does.
//   - An upload is visible only when verified. It may be resumed after its stream broke until it
//     expires; idle ones are bounded in number and bytes.
//   - One call holds a bounded amount of memory: a message, a chunk, and a decompression window.
//   - A panic below a call ends that call as INTERNAL and is logged once.
//
// How bytes go through. A Write's data stays in the buffers it was received in, and is hashed and
// stored from there while the transport receives more. A Read's chunk goes from the store into a
// pooled buffer that the transport sends from while the next is read. Digests of a batch are decoded
// into values without a string each; answers are written straight into pooled buffers. The bench
// compares each with a bare gRPC server that looks at nothing.
//
// What it does not do: it stores nothing, executes nothing, schedules nothing, and does not check
// that a result is complete, which Results promises. It authenticates nobody and therefore listens
// on loopback and unix sockets alone.
//
// Source: remote_execution.proto (API 2.0 to 2.13) and google/bytestream/bytestream.proto.
//
// Start reading at server.go, New. The test that shows it whole is TestServer.
package reapi
