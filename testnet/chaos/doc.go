// Package chaos disturbs a mesh while real builds run over it, by plans that seeds make.
//
// Nouns: Event (one disturbance of one node: when, what, for how long), Plan (the events of one build), Kind (what an
// event does), Office (a lab in which plans are carried out), Load (a client that has small actions run).
//
//	go test -v ./testnet/chaos                                       a few seeds of each kind of build
//	go test -v ./testnet/chaos -run Bazel -seeds 200 -timeout 2h     many
//	go test -v ./testnet/chaos -run Bazel -seed 17 -seeds 1          one, with what happened when
//	go test -v ./testnet/chaos -run Work -kinds kill -seeds 100 -timeout 1h
//
// Measured with the same means: lookups while a peer is stopped, what announcing costs, and how long actions take that sleep
// (the benchmarks Stopped, Announce, Sleepers; each says how to run it).
//
// TestTwoOffices has two sites with a slow line between them, and counts what crosses it.
//
// A build is disturbed from begin to end; then everything is healed. It has to succeed, every output has to be, byte for
// byte, that of an undisturbed build, and no process, mount, directory, control group, slot or pin of an action may be left
// (see Left of testnet/lab). How many actions ran at other members is logged: a seed in which all stayed at home has disturbed nothing.
//
// Promises: the same seed makes the same plan; it never disturbs the node that builds, and always leaves one other
// undisturbed. Events on the network do not overlap, others do. What is disturbed is healed again before the next build;
// who was revoked comes in again as somebody new.
//
// What it does not do: a plan is the same in every run, what nodes do between two events is not.
//
// Start reading at plan.go, Make. The test that shows it whole is TestWork.
package chaos
