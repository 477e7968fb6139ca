// Package slot shares out the cores and the memory of one machine among the actions that want to run.
//
// Nouns: Pool (the machine's capacity and those who wait for it), Request, Slot (a unit of capacity in
// use), queue (the pure core: who is next).
//
// Who is next, in order:
//
//  1. the most urgent priority (the lowest number)
//  2. within a priority, invocations in turn
//  3. within an invocation, first come, first served
//
// A request that does not fit at the moment is passed by those behind it that do, at most
// Capacity.MaxBypass times; then nobody passes until it fits, so a wide request is delayed and never
// starved by narrow ones. Requests of a more urgent priority always go before less urgent ones.
//
// Promises: what is granted never exceeds the capacity; cores are counted in thousandths, without
// rounding drift. A request larger than the whole machine is refused at once with *TooLargeError, which
// names cores or memory. A caller whose context ends leaves the queue, and a slot that was granted in
// the same instant goes back. Everything is safe for concurrent use; Release may be called twice.
//
// What it does not do: it limits no process (the sandbox does) and reads no clock.
//
// Start reading at queue.go, queue.next. The test that shows it whole is TestOrder.
package slot
