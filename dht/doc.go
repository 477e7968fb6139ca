// Package dht is the room of content: what is stored here, and who has what. It holds no code itself.
//
//	digest       content identity as a validated value
//	tree         directory messages: decoded, checked, walked
//	record       keyed records in segment files, the engine under the next two
//	cas          the local blob store
//	actioncache  action results beside it; a hit is complete
//	chunk        content-defined chunks of large blobs
//
// and, across the mesh:
//
//	cid          digests as CIDs, and the keyed hashes the indexes know them by
//	receipt      action results with their executor's signature; who is believed
//	locate       who has what: the interface, and its three ways below
//	summary      everybody's filter at everybody: a miss costs no message
//	onehop       an index spread over members that all know each other
//	kad          a DHT for meshes too large for that
//	distance     how far other sites are
//	fetch        blobs from the best of several peers
//	share        the serving side: what members may ask
//	lookup       action results of others, believed and made complete
//	replicate    others hold what only this node has
//
// What the room does not do: it starts no process and schedules nothing; it never imports exec or
// node.
//
// Start reading at dht/digest, then dht/cas.
package dht
