// Package control is how the command line speaks with the running node: gRPC on a unix socket that
// only the node's owner can open.
//
// Nouns: Node (what the service needs of a node), Server (the socket and the service), Client (the
// other end).
//
// Promises:
//   - The socket has mode 0600, directories made for it 0700: who can open it is the owner.
//   - Listen takes over a socket file nobody answers on and refuses one that is answered.
//   - Dial fails with ErrNoNode, and only with it, when no node answers.
//   - Serve returns after every call has ended; Close stops within the grace it is given.
//
// What it does not do: it holds no state and takes no decision; every answer is the Node's. It is no
// part of the Remote Execution endpoint and is not reachable by network.
//
// Start reading at server.go, Listen. The test that shows it whole is TestCalls.
package control
