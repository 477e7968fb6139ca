// Package facts is what members tell each other about themselves: what their machine is, what it has free,
// whether it runs actions, what their clock shows.
//
// Nouns: Facts (one member's, a value), Board (this node's own, as last set), Book (everybody else's, as last
// heard), Exchange (the streams that carry them).
//
//	lower peer id   opens one stream to every member that is alive, and again when it breaks
//	higher peer id  waits for it; after patience it opens one itself, for a firewall may stand between
//	both            send their facts at once, then whenever they change, at most every sendEvery
//
// Promises:
//   - One stream serves a pair; an idle one carries nothing but the connection's keepalive.
//   - Facts of a peer are bounded before they are kept (Parse): a liar costs a few kilobytes, not sense.
//   - A message is evidence of life (Options.Seen), a broken stream is doubt (Options.Broke), sooner than
//     gossip notices either.
//   - Older and newer programs understand each other: TestGolden keeps the bytes of the first format.
//   - Close waits for every goroutine.
//
// What it does not do: facts are a member's own word. Leases decide, not facts: those are stale by the time
// they arrive.
//
// Start reading at exchange.go, follow. The test that shows it whole is TestExchange.
package facts
