// Package place decides where an initiator's actions run: here, on a peer, or later.
//
// Nouns: Core (the decisions of one initiator), Work (one action to be placed), Try (one attempt of it at one peer),
// Peer (what is believed of a peer), Ticket (the wish to be offered a peer's next free slot), decision (what the caller is
// to do: Reserve, Ticket, Answer, Cancel, Fail), History (what actions of a mnemonic needed before; in memory only: exec/journal
// keeps what Finished says of each, and tells it to the next process).
//
//	facts and time in:  Peer, Gone, Submit, Granted, Refused, Finished, Failed, Offered, Withdraw, Tick
//	decisions out:      Decisions; and Next, the time at which Tick is wanted
//
// How a Work is placed:
//
//  1. its peers: those whose Offer matches and whose class allows it: local work runs here only, fingerprinted work where
//     the fingerprint equals ours, hermetic work anywhere
//  2. of those believed to have room, the best Score: speed x (1 - 0.3 busy/slots) + locality - transfer; own slots have
//     their speed taken 1.1 times. The local view of the chosen peer is decremented at once: Reserve
//  3. none has room: it waits in the initiator's own queue (by priority, invocations in turn, first come first served),
//     and Tickets are left at matching peers, one for each width of an invocation's Works; an offered slot is answered with
//     the next fitting Work, or passed. A peer that holds a Ticket is not asked for what it frees: it offers that
//  4. a Try that is lost is repeated elsewhere with the next attempt; after three it runs here, or fails with UnavailableError
//  5. one that ran out of memory is repeated with twice the reservation, or the most that a peer has; the last time here, with all
//     there is. Later ones of its mnemonic get what it needed from the start, whatever they ask for
//  6. when nothing waits, a Try that takes longer than max(3 x median, p95) of its mnemonic gets one copy elsewhere: at once,
//     unless waiting for a faster peer saves more than it costs
//
// Promises: no I/O, no clock, no goroutine, no lock; equal facts in equal order give equal decisions. The cost of a decision
// does not grow with the number of peers. What peers claim is bounded: capacity, speed and bandwidth are clamped, a peer that
// refuses what it says it has is asked ever more rarely, speed follows what was measured beside this machine's own, and a peer
// gets more than a few actions at once only as it brings results.
//
// What it does not do: it talks to nobody (exec/lease does) and does not know what an action is made of. It is not safe
// for concurrent use.
//
// Sources: Ousterhout et al., Sparrow (SOSP 2013), for late binding; Dean and Barroso, The Tail at Scale (2013), for hedging.
//
// Start reading at core.go, Submit and dispatch. The test that shows it whole is TestLifeOfWork; testnet/sim runs the
// same code with up to 10,000 nodes.
package place
