// Package exec is the room of an action's life on one machine. It holds no code itself.
//
// Top to bottom, as an action passes through it:
//
//	platform     what an action asks of a machine, and whether this one offers it
//	image        container images as root trees
//	action       the decoded, validated action
//	flight       executions in flight: equal ones merge, many clients may watch one
//	place        which machine runs it: decisions only
//	lease        the promise of room there, kept over the network
//	merge        equal actions that several members run at the same time become one
//	slot         cores and memory as reservable units
//	stage        the input root as read-only layers on disk
//	fingerprint  what of this machine an action can see, as one value
//	sandbox      the isolation one command runs in; cgroup accounts and limits it
//	bot          actions lent to bots of the Remote Workers API
//	run          all of the above for one action, once
//	collect      what it left behind, as blobs and an action result
//	journal      what became of it, for who asks why
//
// What the room does not do: it opens no socket, knows no configuration and no user interface; it
// imports of dht and mesh only values (digest, tree, peer) and reaches content through small
// interfaces it declares itself and node joins.
//
// Start reading at exec/run.
package exec
