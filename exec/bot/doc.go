// Package bot lends actions to bots: programs on other machines, such as a stock buildbox-worker, that
// offer their capacity by the Remote Workers API.
//
// Nouns: Bot (what a bot says of itself), session (a bot while it is in touch), Lease (one action given to
// one session), Report (what a bot says of a lease), work (an action that waits for a bot or is with one),
// Bots (all of it, for many callers), Placer (the decision where an action runs: here or with a bot).
//
//	table.go  the pure core: facts and time in, leases out
//	bots.go   a lock, a clock and wake-ups around it: Open, Update (which waits until there is news), Fits
//	place.go  flight.Placer: own slots first; when they are busy, or this machine does not suit, whoever
//	          has room first; a bot that is lost or fails gives the action back, at most Options.Attempts times
//	run.go    one attempt with a bot: wait for its result, verify it
//
// Which bot may have which action: all properties asked must be offered; of a key that a bot reports with
// several values, any may be asked. An action whose input root is the root file system goes to any such
// bot. One that counts on a machine's tools goes only to a bot that reports InputRootAbsolutePath with
// another value than "/", for its owner says with it that the tools there will do.
//
// Promises:
//   - The table does no I/O, reads no clock and starts no goroutine.
//   - A session whose bot does not call for Options.Grace after its last call ended is lost, and so are
//     its leases; a lease that is lost is nobody's result. A result that comes later is not used.
//   - A result counts only when its outputs are among those asked for and everything it refers to is in
//     our store. It names its bot as worker (WorkerPrefix).
//   - When the context of an execution ends, its lease is cancelled; the bot is told with its next answer.
//   - Sessions, leases and sizes of what bots say are bounded. Everything exported is safe for concurrent use.
//
// What it does not do: it opens no socket (node/bot does), does not limit what a bot's machine does to an
// action, and cannot know whether a bot told the truth: results of bots are never shared with the mesh.
//
// Source: google.devtools.remoteworkers.v1test2, bots.proto; buildbox-worker 1.4 as observed.
//
// Start reading at table.go, table.report. The test that shows it whole is TestLifeOfALease.
package bot
