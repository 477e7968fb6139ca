// Command rogue is a member of a mesh that means no good: it has its seat by right and misuses it.
//
//	rogue ROLE DIR
//
// DIR is dir.base of a node of a lab that does not run: rogue takes its identity, its certificate, its store and its
// receipts, and is to the others the member that the node was. It gossips, publishes a summary of the results that it has,
// and serves blobs, receipts, the index (package dht/share) and leases (exec/lease) as a node does, but for what its role spoils.
//
// Roles:
//
//	swapper    sends other bytes than it was asked for
//	truncator  sends half of them
//	hoarder    says that it has every blob, and sends none
//	slowpoke   sends a byte every now and then
//	liar       signs other outputs than those it made
//	replayer   shows the receipt of another action than the one asked for
//	foreigner  shows a receipt that it signed for another mesh
//	bomber     sends small blobs compressed, of which each becomes 256 MiB, and streams that do not end
//	thicket    signs results whose output is a tree of 2^40 directories
//	boaster    says that it has the results of the samples b1 to b150 (testnet/sample), which nobody has
//	miser      says that it has no result
//	snoop      asks everybody for what it has itself and for digests by chance, tells what it was given, and ends
//
// And these to whom actions are given, or whose they are:
//
//	idler      grants leases and never says anything of them again
//	beater     says for ever that what was given to it runs
//	evictor    grants leases and sends away what begins to run
//	latecomer  brings the first result that it ever made, with the receipt of that, whatever it is asked to run
//	braggart   says that it has 65,536 cores and a PiB of memory, and of what took it two seconds that it took 11 ms
//	poacher    is granted what others run in order to end it, shows false claims, reserves all slots and leaves tickets, uses
//	           none, and tells how each member took that
//
// It prints "ready" when all the others are in sight and name it as a holder of what it has, then plays until it is
// interrupted or its lab ends.
//
// What it does not do: it runs no action, also where it lends. Who has no seat is testnet/stranger.
//
// Start reading at main.go, run; then role.go. It is seen at work in testnet/scenarios.
package main
