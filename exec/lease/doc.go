// Package lease lets peers run each other's actions: time-bound promises of room, kept by both sides or let go.
//
// Nouns: Book (the executor's decisions: who has which room until when), Executor (serves a Book to peers), Initiator (has
// actions placed by exec/place and run under leases), Claim (what a lease answers to: lease, attempt, epoch and caller),
// offer (a free slot held for a ticket holder).
//
// The life of a lease:
//
//	Reserve ──granted──> reserved ──Run──> running ──> finished ──Ack──> gone
//	   │                    │10 s             │ kill      │ drop pins
//	refused                gone <─────────────┴───────────┘ Cancel, eviction, 10 s + 10 s without a beat,
//	                                                        or 10 s after its call broke
//
// A call that breaks does not end a lease at once: Run takes it up again. An initiator that sleeps or is slow keeps its call.
//
// Promises:
//   - No executor queues an action: Reserve is answered at once. Who wants a slot that is not free leaves a ticket; freed
//     slots are offered to initiators in turn, and to the invocations of each in turn.
//   - A guest gets no memory that the owner keeps: what was measured to be available, less what was promised since, holds the
//     owner's reserve and what the action asks for. A refusal tells the numbers, or the owner's reason.
//   - Only the claim a lease was given for is answered, and only to the peer it was given to (ErrStale otherwise). At the
//     initiator only the current attempt completes an action; what comes later is at most compared. So is, without its
//     outputs, a result that was here when a copy won: its receipt is kept (TestBothCopiesComplete).
//   - The initiator has verified and fetched every output before its client is answered; until Ack the executor pins them.
//   - A fault of an executor never becomes an exit code or a cached result: the attempt is repeated elsewhere.
//   - Equal actions of several initiators that meet at one executor run once, unless one asked to run alone.
//   - A result of a peer that the Auditor draws, made under a lease or Found, is made again here: one at a time, when there has
//     been no work for a second, at the priority of guests, and its slot is left as soon as work waits for one. At
//     most maxSuspects wait for that, what comes beyond is believed; it ends with Close.
//   - Cancel kills at once and may be repeated. Close ends and waits for everything.
//
// What it does not do: it opens no socket (node gives connections and registers the service), moves no blobs (Content
// does), signs nothing (Receipts does) and does not decide where an action runs (exec/place does).
//
// Start reading at book.go, Reserve, then initiator.go, Place. The test that shows it whole is TestLifeOfALease.
package lease
