// Package share is the serving side of content: what this node tells and gives the members of its mesh.
//
// Nouns: Blobs (REAPI's ContentAddressableStorage and ByteStream, read-only), Content (summaries, receipts
// and the index), Guard (who may ask how much), Private (what is not shared).
//
// Promises:
//   - Nobody is served whom Guard's Caller does not know as a member; nothing can be written.
//   - A blob that is private is absent, for FindMissing, batches, streams and trees alike.
//   - There is no call that lists blobs or results. A member that asks for what is not here again and
//     again, as one that guesses does, is refused for a while: MissBurst at once, then MissRate a second.
//   - A batch sends at most BatchBytes, a tree at most MaxTree directories and MaxTreeBytes; no more
//     than Guard.Rate bytes a second leave, all members together.
//   - Safe for concurrent use.
//
// What it does not do: it opens no listener and checks no certificate (mesh/transport does), and fetches
// nothing.
//
// Start reading at guard.go, then blobs.go. The test that shows it whole is TestTwoNodes.
package share
