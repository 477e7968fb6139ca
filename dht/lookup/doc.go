// Package lookup finds action results that other members have, and publishes those made here.
//
// Nouns: Lookup, Query, candidate (a peer that is said to have a result), asker (gathers questions to one peer),
// budget (the time asking may take).
//
// How Find goes, each step only if those before it decide nothing:
//  1. receipts known here
//  2. a miss less than NegativeFor ago is one still
//  3. the locator names nobody: a miss, without any message when summaries are the locator. Of other sites those are left
//     out from which a hit is expected to take longer than the action (Worth); such a miss is not remembered
//  4. candidates are asked, the next one after HedgeAfter, all within Budget; questions to one peer that
//     come while one is under way travel together; equal questions are one
//     Those at this node's site are asked first. A bridge of another site, if it has no receipt itself, names
//     the members there that have, and they are asked; FarBudget bounds both
//  5. receipts are checked, stored and weighed by the policy (package receipt)
//  6. every blob of the result is fetched, from this site first, from who said to have them; only when the result is
//     complete here is it a hit
//
// Promises:
//   - A hit is complete and local when Find returns; anything that goes wrong on the way is a miss.
//   - A peer that does not answer costs Budget once, and is then left out for SlowFor, or until its answer comes late; one
//     that is late twice running stays left out. What it may have is no miss that is remembered.
//   - A machine that stands still itself takes what came meanwhile: its own time is no peer's (budget.go, TestStandstill in
//     testnet/chaos).
//   - When receipts about an action disagree, what was taken on another's word is served no more, nor what is taken later.
//   - Publish makes nothing of what is private; results a client made itself never come here.
//   - Safe for concurrent use. Close waits for every call that was started.
//
// What it does not do: it runs no action, knows no endpoint, and passes no content on: where only bridges of two sites get
// through to each other, one has of the other what these bridges have (TestOnlyBridgesReachEachOther).
//
// Complete or streamed on demand (EXECUTION and MESH leave both): pulling first was chosen, since Bazel
// reads nearly every output of a hit it asked for, and a hit then outlives every other node. Measured
// (BenchmarkHitOutputs in node): eight outputs of 16 KiB take 0.8 ms in one batch, 1.7 ms one by one.
//
// Start reading at find.go, Find. The test that shows it whole is TestSecondNodeHits.
package lookup
