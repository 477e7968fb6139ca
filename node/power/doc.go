// Package power decides how much of this machine is lent to others' actions: a laptop is its owner's first.
//
// Nouns: Facts (what is so at this moment: battery, processors, memory, the person at the machine, heat,
// network), Policy (what the owner wants done about it), State (open, throttled, draining, closed), Core
// (facts and time in, a Status out), Reader (fills in some of the Facts), Governor (asks the readers every
// few seconds, keeps a pause across restarts, tells who listens).
//
//	open       lends all slots
//	throttled  lends half of them, and takes back nothing that runs; who has but one drains and closes instead
//	draining   lends nothing new; what runs may stand still, and is evicted after Policy.Grace
//	closed     lends nothing, and nothing of others runs
//
// Promises:
//   - The Core reads no clock and no machine. It goes to a worse state at once and to a better one only
//     after Policy.Calm without a reason against it, so a battery plug that wobbles does not drive leases to
//     and fro; while it drains, a reason that is gone brings it back at once.
//   - Every state but open has a reason in a person's words.
//   - A fact that cannot be read is no reason to close: a machine without logind or battery lends.
//   - Whoever admits guests is told the facts of every look: that there is memory for one of them is not the Core's to judge.
//   - A pause survives a restart; one that has run out is forgotten. A clock that is set back cannot
//     prolong it beyond its own length.
//   - All of Governor is safe for concurrent use; Run is its only goroutine.
//
// What it does not do: it knows no leases and stops no process: who runs guests follows Status.Freeze and
// Status.Evict. The owner's own actions are never affected.
//
// Start reading at core.go, Step. The test that shows it whole is TestADay.
package power
