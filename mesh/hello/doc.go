// Package hello is the first words of two nodes: members show each other that they are, a joiner shows
// an invite and becomes one.
//
// Nouns: Door (the transport.Gate of a node: greets members, serves joiners), Join (the other side of a
// joiner's visit), Service (what members ask about belonging later: renewal, newer charters), Keeper
// (renews this node's certificate and fetches what it lacks, in time).
//
//	Greet  the dialer shows its certificate first, to a peer it knows by id; the listener shows its own
//	       only to a member. The one with the older charter gets the newer.
//	Join   the joiner checks that TLS proved the steward its code names; proves the invite; checks the
//	       charter and the steward's certificate against the mesh its code names; only then says its name.
//
// Promises:
//   - A stranger gets one of three things: a refusal without a word more, a closed connection, silence
//     until the deadline. It learns a peer id, from TLS.
//   - What it may send is read into at most a few hundred bytes before it has proven anything; a frame
//     is checked against its bound before memory is taken. No state of it stays.
//   - A verdict is one of few; the local error says more and wraps the sentinel of mesh/trust.
//
// What it does not do: it makes no connection and sets no deadline: the transport does.
//
// Start reading at door.go, Greet. The test that shows it whole is TestJoin.
package hello
