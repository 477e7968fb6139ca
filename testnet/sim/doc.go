// Command sim plays builds on simulated meshes of 3 to 10,000 nodes, and compares ways to place actions.
//
// Nouns: scene (what a world is made of), world (nodes, a clock, events in order), act (an action of a build), policy (a way
// to place actions), outcome (makespan, and p99 of the time from ready to done).
//
// The policy called mesh is the code that nodes run: one exec/place Core an initiator, one exec/lease Book a node, with
// messages that take time and facts that are stale. The others are what the literature has:
//
//	clairvoyant   list schedule by critical path, every duration known and nothing going wrong (HEFT, Topcuoglu et al. 2002)
//	central FIFO  one queue that sees every free slot at once, and knows which node is fast
//	random        pushed to any node, where it waits
//	least loaded  pushed to the shortest queue, by facts a second old
//	two choices   pushed to the shorter of two random queues (Mitzenmacher 2001)
//	late binding  two reservations an action, the first free slot gets it (Sparrow, Ousterhout et al. 2013)
//
// The builds are copies of one recorded from Bazel (testdata/cpp.trace.gz), with its dependencies. Nodes differ in speed,
// slots and bandwidth; inputs are fetched where they are not, outputs go back to the initiator. In disturbed scenes a tenth
// of the nodes dies and comes back, and a fifth slows down to a tenth.
//
// Promises: equal scenes give equal numbers, on every machine. Wall-clock time is looked at for -rates only.
//
// What it does not do: it loses no messages and has no lying peers (the tests of exec/place and exec/lease do), and its
// seconds are not those of a real mesh.
//
//	go run ./testnet/sim              the table and the picture, into out/sim (-small: up to 300 nodes)
//	go run ./testnet/sim -nodes 1000 -actions 40: one mesh only, with 40 actions for every slot
//	go run ./testnet/sim -rates       decisions a second at 100, 1,000 and 10,000 nodes
//	go test ./testnet/sim -v -large   asserts the ratios with up to 1,000 nodes (minutes)
//	go run ./testnet/sim -record LOG  testdata/cpp.trace.gz, from what BenchmarkRecord of testnet/clients wrote
//
// Start reading at world.go, then mesh.go. The test that shows it whole is TestAgainstClairvoyant.
package main
