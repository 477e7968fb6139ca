// Package record keeps values under 33-byte keys in append-only files, with an index in memory, a
// byte limit, least-recently-used eviction, and a start that reads no values.
//
// Nouns: Log (an open directory), Key, Item; segment (a file of frames: values that say what they
// are, with a checksum), journal (56-byte lines that tell each change), entry (64 bytes of index
// for a value), Owner (keeps external values: files of its own that the log only accounts for),
// lease (time since the last use in which an entry is safe), pin.
//
// How a Put goes:
//  1. Make room: compact a segment that is half waste, else evict the oldest unleased entries.
//  2. Append the frames to the active segment with one write, outside the mutex.
//  3. Append their lines to the journal with one write, make the entries visible, answer.
//
// How an external value comes: a line of intent, the rename by the owner, a line of adoption. How
// it goes: a line of removal, the unlink by the owner, a line that the file is gone. Open finishes
// what was between two of them.
//
// Promises:
//   - What was acknowledged survives the end of the process at any moment (the kernel has it).
//     Loss of power may cost what was written in the last SyncEvery and a bit; Open then reads what
//     was not known to be durable and drops what is damaged. Values never come back changed: reads
//     check the frame's checksum.
//   - Open reads the journal alone: a million entries in about half a second. The journal is
//     rewritten, in order of use, when it is more than twice the entries, and by Close.
//   - The byte limit holds for segments, waste included, external values and reservations; while a
//     segment is compacted it may be passed by half a segment. The journal is not counted.
//   - Open tells by Stat().Lost that something was damaged; who can miss nothing sets Options.Keeps and asks.
//   - Removals can be told on a full disk: the journal keeps space allocated for them.
//   - Safe for concurrent use; one goroutine, which sleeps while nothing changes and ends in Close.
//
// What it does not do: it does not hash values, knows no files but its own, and after a crash the
// order of use of what was only read since the last checkpoint is that of writing. A key must not
// change from external to inline without a Delete.
//
// Layouts measured before choosing (BenchmarkLayout): against a file per value, puts are 36 times as
// fast at 1 KiB and 6 times at 16 KiB, gets 10 and 2 times; against bbolt puts 2 to 6 times.
//
// Start reading at put.go, Put; then open.go, replay. The tests that show it whole are
// TestAgainstModel and, in package cas, TestKilledAtAnyMoment.
package record
