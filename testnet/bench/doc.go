// Command bench measures this node beside bazel-remote, in one run on one machine, and bare fork and exec
// beside the node's executions.
//
// Nouns: Subject (a server process under measurement), Row (one thing measured: a name, a unit, one figure a
// subject), round (one measurement of one row on one subject).
//
// How it measures: both servers run at the same time on loopback, each with an empty directory of its own on
// the same disk. The rounds of a row alternate between the subjects (A B A B ...), so a machine that becomes
// slower becomes slower for both; a row's figure is the median of its rounds, its ratio the ratio of the
// medians. The client is grpc-go with the generated messages, in this process, on the same cores.
//
// It writes a table (bench.md) and a picture of the ratios (bench.svg) into the directory out, and prints the
// table.
//
// What it does not do: it passes no verdict and fails on no figure; it measures no build (go test -bench in
// testnet/clients does).
//
// Start reading at main.go, main, then rows.go. The test that shows it whole is TestRowsAgainstAServerInMemory.
package main
