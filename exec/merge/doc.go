// Package merge has equal actions that several members run at the same time be run once.
//
// Nouns: Board (who runs what, kept by one member for each key), Merger (a node's own part: it tells what
// begins here and waits for those that began before), running (an action of this node's that began),
// Key (what an action's result is known by in the mesh).
//
// How an action is merged:
//  1. When it begins to run, its initiator tells the member that keeps the board for its key; nothing waits
//     for the answer. What comes together travels together
//  2. The board names who began before, or has made it. Its word counts while the own run is young
//  3. The own run is then given up and that member is asked until it is over; it sends the receipts, which
//     are believed as all others are (Results.Adopt)
//  4. Whatever keeps the result from coming has the action run here at once, and the board told that it is
//     run despite that member: among several who waited, the first to say so is waited for by the others
//
// Promises:
//   - What begins is told, never what is queued: nobody waits for an action that waits itself, and two never
//     wait for each other.
//   - A member that is lost, turned out, or stands still costs PollFor and Slack at most; a lie costs the
//     patience for one action, whoever tells it: three times what such actions took here at worst.
//   - What takes less than Worth as a rule is neither told nor waited for.
//   - A board has at most MaxNotices, and MaxPerPeer of one member. They lapse after TTL unless they are renewed, those of
//     results after MadeFor.
//   - A key of which nothing is known counts as a guess of the caller's (Options.Missed).
//   - Everything is safe for concurrent use, a Board alone is not. Close ends and waits for everything.
//
// What it does not do: it opens no socket, moves no blobs, knows neither trust nor what is private
// (Results does) nor who keeps which board (Keeper does: node spreads them over its site, so that nothing goes over a
// line between two), and does not merge on one node (exec/flight and exec/lease do).
//
// Start reading at board.go, then running.go, Begin. The test that shows it whole is TestEqualRunsAreOne.
package merge
