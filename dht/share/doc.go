// Package share is the serving side of content: what this node tells and gives the members of its mesh.
//
// Nouns: Blobs (REAPI's ContentAddressableStorage and ByteStream, read-only), Content (summaries, receipts
// and the index), Guard (who may ask how much), Private (what is not shared); Hiding, Revealing and Veiled (the
// store as unshared clients, shared clients and the mesh see and fill it), mark (why a blob is private).
//
// Promises:
//   - Nobody is served whom Guard's Caller does not know as a member; nothing can be written.
//   - A blob that is private is absent, for FindMissing, batches, streams and trees alike.
//   - A mark is kept before its blob is visible, and survives kill -9. A blob that is private for one and
//     shared by another is shared. What fails, fails closed: a mark that finds no room keeps its blob out
//     and shares nothing more; where marks were lost every blob gets one.
//   - There is no call that lists blobs or results. A member that asks for what is not here again and
//     again, as one that guesses does, is refused for a while: MissBurst at once, then MissRate a second.
//   - A batch sends at most BatchBytes, a tree at most MaxTree directories and MaxTreeBytes; no more
//     than Guard.Rate bytes a second leave, all members together.
//   - Safe for concurrent use.
//
// What it does not do: it opens no listener and checks no certificate (mesh/transport does), and fetches
// nothing.
//
// Start reading at guard.go, then blobs.go; of privacy at private.go, then entrance.go. The tests that show it
// whole are TestTwoNodes and TestEntrances.
package share
