// Package dht is the room of content: what is stored here, and who has what. It holds no code itself.
//
//	digest       content identity as a validated value
//	tree         directory messages: decoded, checked, walked
//	record       keyed records in segment files, the engine under the next two
//	cas          the local blob store
//	actioncache  action results beside it; a hit is complete
//	chunk        content-defined chunks of large blobs
//
// What the room does not do: it starts no process and schedules nothing; it never imports exec or
// node.
//
// Start reading at dht/digest, then dht/cas.
package dht
