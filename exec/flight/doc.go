// Package flight carries each requested execution from the question whether its result is known to the answer,
// independently of the client that asked.
//
// Nouns: Table (all flights of a node), Flight (one execution, watched by any number of clients),
// State (a flight at one moment, with a version), Request, Outcome (what an executor brings back),
// Merger (has what several nodes run at the same time be run once).
//
// A flight passes through the stages of the protocol in this order, never back:
//
//  1. CACHE_CHECK: Results.Get, unless skip_cache_lookup or do_not_cache
//  2. QUEUED: Placer.Place; by itself a machine gives its slots by priority and in turn between invocations
//  3. EXECUTING: Executor.Execute, or, when another node began it before, Merge.Await; when that
//     brings nothing, 2 again under the name of 3
//  4. COMPLETED: Results.Put, unless do_not_cache, exit code != 0 or an error; then the Response is visible
//
// Promises:
//   - Errors of creating a flight come from Execute: those of exec/action, ErrFull, ErrClosed. Whatever happens later is in
//     Response.Status, translated by Options.Status. A panic of an executor is such an error too.
//   - Equal actions in flight merge into one, unless do_not_cache. A request with skip_cache_lookup
//     merges only with a flight that skipped the lookup too; one without it merges with both.
//   - A flight survives its callers' contexts. Cancel ends it for everyone. When nobody waits for it
//     during Options.Abandon it is cancelled as well.
//   - Finished flights stay findable, at most Options.Retained of them and at most Options.Retention long.
//   - Everything is safe for concurrent use. Close cancels all flights and waits for them.
//
// What it does not do: it speaks no gRPC, inlines no content, and knows neither sandbox nor mesh. The
// priority of a flight is that of its first request, also when a more urgent one merges with it.
//
// Source: build.bazel.remote.execution.v2, service Execution and message ExecuteRequest.
//
// Start reading at table.go, Table.Execute, then run.go. The test that shows it whole is TestLifeOfAFlight.
package flight
