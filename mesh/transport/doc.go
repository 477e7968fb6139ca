// Package transport carries calls between the members of a mesh: gRPC both ways over two kinds of
// connections, each with the caller's proven identity.
//
// Nouns: Transport (one node's end), Gate (who is let in; the consumer's), control (small calls that must
// not wait), bulk (streams of content), visit (what a stranger may do: one hello and nothing else).
//
//	TCP -> first bytes -+-> multistream, TLS 1.3 -> Gate.Greet -> libp2p -> streams -> control gRPC
//	   (one port)       +-> TLS 1.3, ALPN "h2"   -> Gate.Greet -> bulk gRPC
//	                    +-> TLS 1.3, ALPN hello  -> Gate.Visit
//
// Control and bulk are TCP connections of their own: on a shared one, a small call waits behind every
// window of a transfer. Both prove peer ids with libp2p's TLS identity.
//
// Promises:
//   - Nothing a peer sends reaches libp2p or gRPC before the Gate let the peer in: to a stranger there
//     are no streams, no protocols, no services and no names; it sees a peer id and a closed door.
//   - Whoever asks, Gate.Admits is asked again for every call and stream; Drop closes what is open,
//     and what is being opened when the Gate has been told before it.
//   - Learn feeds the address book; Control and Bulk dial when needed and return at once: the first call
//     waits for the connection, until its context ends. Call them again rather than keep the result.
//   - Connections being opened are bounded in number, in time and per address, and an office of 60
//     behind one address fits; see limits.go.
//   - A stream of content over bulk is copied once at either end: who receives a ReadResponse into a message that was
//     received into before gets its bytes in the room of the old ones, and keeps neither.
//   - Serve ends after Close, which waits for every goroutine of the Transport's own.
//
// What it does not do: it knows no certificates (mesh/hello does), finds nobody, retries nothing.
// QUIC listens when configured and serves control only, for peers that have greeted over TCP before.
//
// Sources: libp2p TLS 1.3 handshake specification; RFC 7301 (ALPN).
//
// Start reading at transport.go, Open. The test that shows it whole is TestCalls.
package transport
