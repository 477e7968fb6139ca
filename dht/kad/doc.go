// Package kad is the locator of meshes too large for everybody to know everybody: kad-dht, Kademlia with provider records,
// over the connections members have anyway.
//
// Nouns: Locator (one node's part of the DHT; makes, tends and ends it), keeper (what this node has announced and not taken
// back, asked by others), teller (gathers the DHT's messages of one key each to few of many).
//
// How a key is found:
//  1. Announce notes it here and hands it to a sweeping provider, which tells the BucketSize members nearest to each key in
//     one visit a region, and again every half ProvideValidity.
//  2. Find walks towards the key, Parallel keys at once, each within Budget.
//  3. A provider record cannot be taken back before it expires. So who a record names is asked, in one message a peer, what
//     of it still holds; Forget needs no message then.
//
// Promises:
//   - Nothing of the DHT runs before New and after Close. It speaks a protocol of the mesh's own, to members only.
//   - A find takes Budget for each Parallel keys, and once more, whoever sleeps; what was found until then counts. A miss
//     costs several messages: this is the last locator to ask, never the first of many questions.
//   - Announce returns before others were told.
//   - Safe for concurrent use.
//
// What it does not do: it stores no values, bounds no asker (share.Guard does not stand before libp2p's protocols), and saves
// nothing.
//
// Sources: Maymounkov and Mazieres, Kademlia, 2002; the libp2p kad-dht specification.
//
// Start reading at kad.go, New. The test that shows it whole is TestConformance.
package kad
