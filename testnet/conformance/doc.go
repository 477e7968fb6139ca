// Package conformance examines a server of the Remote Execution API from outside: every claim the
// protocol makes, and every habit of a widely used client that the protocol leaves open, is one check.
//
//	go test ./testnet/conformance -v -endpoint=grpc://127.0.0.1:8980 [-instance=NAME] [-unix=PATH]
//	    [-platform=k=v,...] [-require=operations,logstream | -require=all] [-must]
//	    [-keepalive=INTERVAL] [-patience=DEADLINE]
//
// Nouns: Check (a claim, its rule in one sentence, its source, and the way to refute it), Section
// (a part of the protocol), Subject (the server examined), Feature (what a server may leave out),
// T (what a check needs of a test), Recorder (a T that keeps what was said).
//
// Promises:
//   - Only gRPC is used, over plain text; nothing is assumed about the server's files or time.
//   - What Capabilities advertises has to work. What is not advertised, or answers UNIMPLEMENTED
//     where the protocol allows it, is skipped with words, or fails under -require.
//   - All content is new in every run: the suite can be repeated, and run beside itself and beside
//     builds, against one server. It deletes nothing and fills no store (some 300 MB of uploads).
//   - Every check has a deadline. Executions are /bin/sh commands on small input roots and need no
//     more than a shell, a working directory and PATH.
//   - A rule is MUST when the protocol says so or a client named in its source breaks without it,
//     SHOULD when it is a recommendation; -must leaves the latter out.
//   - With -v, or when something fails, a summary by section ends the run.
//
// Without an endpoint the suite examines the in-memory server of package wrong, and shows of every
// check a defect that makes it fail: a check that cannot fail is not a check.
//
// What it does not do: it measures no speed, wears out no disk, and cannot see what a black box
// hides, such as eviction; where a rule is about lifetimes it checks what a client could notice.
//
// Start reading at check.go, Check, then checks_everycall.go. The test that shows it whole is
// TestDefectsAreCaught.
package conformance
