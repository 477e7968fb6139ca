// Package chaos disturbs a mesh while a real build runs over it, by a plan that a seed makes.
//
// Nouns: Event (one disturbance of one node: when, what, for how long), Plan (the events of one build), Kind
// (what an event does).
//
//	go test ./testnet/chaos                          a few seeds
//	go test ./testnet/chaos -seeds 200 -timeout 5h   many
//	go test ./testnet/chaos -seed 17 -v              one, with what happened when
//
// A build is disturbed from begin to end; then everything is healed. It has to succeed, every output has to be,
// byte for byte, that of an undisturbed build, and no process of an action may be left.
//
// Promises: the same seed makes the same plan; it never disturbs the node that builds, and always leaves one
// other undisturbed. Events on the network do not overlap, others do. What is disturbed is healed again before
// the plan ends, but for a revocation.
//
// What it does not do: a plan is the same in every run, what nodes do between two events is not.
//
// Start reading at plan.go, Make. The test that shows it whole is TestBuildsUnderChaos.
package chaos
