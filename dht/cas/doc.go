// Package cas is the local blob store: content on disk under its digest, within a limit of bytes
// and leaving a minimum of free disk.
//
// Nouns: Store, Blob, Writer and Reader (one blob as a stream), Pin (holds blobs until released),
// lease (every write, read or question keeps a blob for Options.Lease), Stat, Report.
//
// Layout: blobs up to Options.InlineLimit live together in the segments of a record.Log under
// records/; larger ones are files of their own under blobs/, so that they can be hard-linked into
// input trees. One index, one order of use and one byte limit cover both.
//
// Promises:
//   - Nothing is visible before it was verified against its digest, whole. What Put, PutBatch,
//     Commit or PutFile acknowledged survives kill -9 at any moment, and nothing half is left;
//     loss of power may cost the last seconds, never show wrong content.
//   - Missing, reads and writes renew leases. Only blobs without lease, pin and open Reader are
//     evicted, least recently used first. When nothing may go, writes fail with ErrFull and reading
//     goes on; a disk that others filled is the same.
//   - Small blobs are checked (checksum) on every read, large ones when written, by Verify, and when
//     somebody has written to their file since (its time of modification says so) before they are
//     read or linked; damaged ones are removed or moved to quarantine/ and are then not found.
//   - The empty blob is always present, for every function. A right hash with a wrong size is
//     another blob, and absent.
//   - Writing one blob twice at once is fine: all writers succeed.
//   - Leases are measured by a clock that steps of the wall clock do not move. Leases do not
//     outlive the process; the order of use does.
//   - Safe for concurrent use. One process at a time: ErrLocked names the other.
//
// What it does not do: it knows no peers, no action results and no compression, and does not count
// references. MaxBytes counts content, framing, waste and executable copies, not the journal and
// not files that hard links outside keep alive after an eviction.
//
// Start reading at store.go, Open; then write.go, PutBatch. The tests that show it whole are
// TestConformance (package castest holds the suite) and TestKilledAtAnyMoment.
package cas
