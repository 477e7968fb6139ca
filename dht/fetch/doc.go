// Package fetch brings blobs from other peers into the local store.
//
// Nouns: Fetcher, provider (a peer that may have a blob), piece (what one call asks for: many small blobs
// or a range of a large one), Standing (what a provider has shown itself to be).
//
// How blobs are fetched:
//  1. What is here already is left out; what is on its way is waited for (single flight).
//  2. The hints are asked first; then those the locator names; then up to MaxAsked members by
//     FindMissing. What nobody has is missing.
//  3. Small blobs travel in batches of up to BatchBytes, several batches at a time and from several
//     providers; a batch that is slow is asked for elsewhere too, and the first answer counts.
//  4. Large blobs travel as streams, hashed while they are written. A stream that breaks or stalls goes
//     on at another provider where it stood; large ones come in ranges from several at once.
//  5. The directories of a tree whose root is not here come whole in one call to the best hint (FetchTree);
//     what that does not bring comes level by level.
//
// Promises:
//   - Nothing is visible in the store before its hash was verified. A provider that sent other bytes is
//     not asked again for LieFor; when several took part in a blob, each is tried alone.
//   - A provider can cost memory and disk for what was asked for, and no more: an answer that was not
//     asked for, of another size or compressed ends the call.
//   - Every call ends: without progress for StallAfter another provider takes over, without any provider
//     the fetch fails. The only provider is waited for up to GiveUp, half as long each time in vain.
//   - No more than Options.Rate bytes a second are received, all fetches together, and those of the Fetchers within it.
//   - Safe for concurrent use; goroutines end before the call that started them returns.
//
// What it does not do: it decides nothing about results, and serves nobody (package share does).
//
// Start reading at fetcher.go, Fetch. The test that shows it whole is TestAdversaries in package share.
package fetch
