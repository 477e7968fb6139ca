// Package clients drives a real node with the real programs that people build with.
//
// Nouns: Kit (what the script `install` put on this machine), Place (a root filesystem in which a node and
// its client run together: the machine's own, or the kit's Debian testing root), Node (a running buildmesh
// process), Bazel (one installed version, with what it needs to build offline), Build (what one call of
// Bazel said); BuildStream, Client (it with caches of its own) and Streamed likewise.
//
// A client and its node share a Place because a bare Bazel action uses the compilers of the machine it runs
// on: the toolchain that Bazel looked at has to be the one that the node's sandbox shows.
//
// Promises: a Node or a Bazel server that a test started is ended when the test ends, by its process id;
// every wait has a bound and says what it waited for. Commands run offline: nothing here reaches the network
// once `install` is done.
//
// What it does not do: it asserts nothing about speed (testnet/bench does), and it knows none of the node's
// packages: what it needs to know it asks the binary's command line.
//
// Where `install` cannot work (no root, no Debian) the tests are skipped with its message; with CI=true they
// fail instead.
//
// Start reading at kit.go, Find. The test that shows it whole is TestCleanBuildThenOnlyHits.
package clients
