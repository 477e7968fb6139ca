// Package replicate has other members hold what only this node has, so that it may leave.
//
// Nouns: Copier (has own results copied), Keeper (takes copies of others' results), holder (a member that
// confirmed that it has a result whole), round (one pass over what is due).
//
// How a result made here gets its holders:
//  1. Note pins its blobs, so that eviction cannot take what nobody else has. It is due After later: what
//     another member fetches by itself meanwhile costs nothing.
//  2. A round asks members to keep what is due, in batches: those said to have it already, then those on
//     mains power, then those on battery, but last who did not answer the last time; never over a metered
//     network, neither end's.
//  3. The member that is asked fetches the receipt and the blobs as it fetches anything: it checks them,
//     announces the result as its own, and only then says that it has it.
//  4. With as many holders as Options.Others the pin is released. Else everybody is asked again
//     RetryAfter later, and after twice that time, and so on, at most RetryMax.
//
// Promises:
//   - Nothing waits for it: a build is over before its copies are.
//   - A Keeper takes nothing that its store would have to evict something for, and no more than its
//     fetcher's rate; what it does not believe it does not take.
//   - Pins take at most Options.PinBytes; what is beyond is copied all the same, unpinned.
//   - What is not confirmed is due again after a restart: the owner calls Note for results made earlier.
//   - Safe for concurrent use; Run ends with its context.
//
// What it does not do: it does not notice that a holder leaves for good or evicts later; a holder that lies
// about having something is believed.
//
// Start reading at copier.go, round. The test that shows it whole is TestBuilderLeaves.
package replicate
