// Package lab is the mesh as a laboratory: real node processes, each on a machine's network of its own.
//
// Nouns: Lab (a switch and the nodes plugged into it), Node (a network namespace with one address, a
// directory, and at times a running `buildmesh up`), Link (what a wire between groups of nodes does to
// frames), Traffic (what crossed such wires, by Flow), Usage (what a node has cost so far).
//
//	lab, err := lab.New(lab.Options{Binary: path})
//	defer lab.Close()
//	ana, err := lab.Add("ana", lab.Machine{})
//	err = ana.Start(ctx)
//	out, err := ana.Run(ctx, "status")
//	err = lab.Partition([]string{"ana"}, []string{"ben", "cai"})
//
// How it is made: every node and the switch has a network namespace without a name, held by a thread of
// this process and by nothing else. A node is plugged in by a veth pair into a bridge. A partition gives
// every group a bridge of its own; a slow wire joins such bridges by a pair of tap devices between which
// this process carries the frames, late, thinned or one at a time: not every kernel has netem. Loss in one
// direction gives the sender a neighbour entry that leads nowhere: frames vanish silently, as with a
// half-open firewall.
//
// Promises:
//   - Nothing of a lab is seen from the machine's own network, and two labs never meet: they may use the
//     same addresses at once.
//   - Nothing outlives the process. Even after SIGKILL of the lab the nodes die and the namespaces,
//     interfaces and wires go with them; only its directory, the disks in it and its nodes' control groups are left, and
//     the next lab sweeps them.
//   - Close ends the nodes by their process ids, waits for them, and removes the directory.
//   - Every wait is bounded.
//
// What it does not do: it asserts nothing, and it knows of the node only the command line, the control
// socket and the metrics. It runs on Linux and needs root, /dev/net/tun for slow wires, and the program ip
// of iproute2; it changes no route, address or rule of the machine.
//
// Start reading at lab_linux.go, New. The test that shows it whole is TestNodesReachEachOther.
package lab
