// Package discover finds nodes nearby, and the address under which they find this one.
//
// Nouns: Self (what this node tells everybody: public things only), Find (a node somebody told of),
// beacon (a UDP packet by multicast that carries a Self), Stranger (another mesh on the same network),
// Discover (the loops that tell and listen).
//
//	beacon  asks at 0, 0.5 and 1.5 s after the start, then tells every 30 s; members answer who asks
//	mDNS    the same as a service _buildmesh._udp, by libp2p's zeroconf
//
// Both are hints: anybody can send them. They say where to try; who is there, certificates say. Static
// peers and the seeds of an invite need neither, and are enough where multicast is filtered.
//
// Promises:
//   - A stranger's mesh is seen and named, and never answered or tried.
//   - What strangers send costs bounded memory and few answers: at most maxFinds nodes and maxStrangers
//     meshes are remembered, at most answersASecond answers are sent.
//   - Told is what anybody may know: the mesh's label and public name, peer id, ports.
//   - Close waits for every goroutine; zeroconf's own end when their sockets do.
//
// Deviation: libp2p's mDNS service itself tells multiaddresses and nothing else. The mesh's name and the
// gossip port have to travel too, so this speaks through the zeroconf library under it.
//
// What it does not do: it joins nobody. It does not search beyond the links this machine is on.
//
// Start reading at discover.go, Open. The test that shows it whole is TestTwo.
package discover
