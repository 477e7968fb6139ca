// Package health looks after the members whose state is in doubt: own evidence for mesh/roster.
//
// Nouns: Health (the loop), Pinger (asks one member over an authenticated stream), look (one attempt).
//
//	gossip lost a member            look at once: it answers, then gossip was wrong, or it is dead
//	a stream to a member broke      Check: look at once, and know before gossip does
//	alive in gossip, not for us     look again after 2, 4, 8, ... at most 60 s
//
// Promises:
//   - At most maxLooks attempts at once, each within lookTime; one member is asked once at a time.
//   - Members that are well are not asked: an idle mesh costs nothing here.
//   - Close waits for every goroutine.
//
// What it does not do: it opens no connection itself, and decides no state: roster does, from what it finds.
//
// Start reading at health.go, run. The test that shows it whole is TestLooks.
package health
