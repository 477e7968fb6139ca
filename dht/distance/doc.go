// Package distance keeps how far away other sites are, as calls and transfers have shown.
//
// Nouns: Table (what was measured, by the name of a site), Distance (how long an answer takes, and how fast bytes come).
//
// A call is slow for many reasons and only one of them is the way, so of the last Samples the best one counts: the
// shortest answer and the fastest transfer. Fewer than Enough are no measurement, and one older than FreshFor counts no
// more: a site that nobody asks because it seemed far is asked again after that.
//
// Promises:
//   - What is not known is zero.
//   - At most MaxSites sites are kept; of further ones nothing is known.
//   - Safe for concurrent use.
//
// What it does not do: it sends nothing to measure, and it judges nothing; package lookup does.
//
// Start reading at distance.go, Table. The test that shows it whole is TestTable.
package distance
