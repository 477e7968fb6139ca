// Package summary is the locator for meshes in which everybody can have everybody's filter: finding
// out that nobody has something costs no message.
//
// Nouns: Publisher (the summary of what this node has), Part (a piece of a summary on its way), Peers
// (everybody else's summaries, kept up to date), Locator (both as a locate.Locator), base (a binary
// fuse filter over the fingerprints of keys), delta (the fingerprints that came after it, in order),
// Bridge (a member that publishes one summary of everything at its site), relay (another site's summary as a
// bridge here passes it on).
//
// How a summary spreads:
//  1. Add appends to the delta. When the delta or what was removed has grown large beside the base, a
//     new base is made of everything, under the next epoch, and the delta starts anew.
//  2. Each member follows each other one's summary on one stream that stays open: it says what it has
//     (epoch, length of the delta) and gets the rest, then every Interval what is new.
//  3. A stream that breaks is opened again where it stood.
//  4. With several sites, members follow each other only within one. A site's two bridges follow everybody
//     there once more, by the fingerprints themselves, and publish what these are together; that is what the
//     bridges of other sites follow, and pass on as it came to the members there, who follow it at one of them. So
//     it crosses once for each pair of bridges, however many members a site has. A member whose bridge is gone or
//     has nothing goes on at the other one where it stood. Find names the bridge the summary is of, who knows which
//     member has it (package lookup).
//
// Promises:
//   - Find sends nothing. With fingerprints of 32 bits one filter errs once in 4 billion, 63 of them
//     once in 68 million; with 16 bits, half the size, 63 err once in 1,040.
//   - A removed key is found until the next base; an added one as soon as the delta has arrived.
//   - What a peer sends is checked and bounded: it can waste MaxBase and MaxDelta of memory and no
//     more; a bridge could alter what it passes on. A peer whose claims turn out empty, again and again, is
//     ignored for a while (Report).
//   - Safe for concurrent use. Run owns every goroutine.
//
// What it does not do: it does not ask peers for results, and does not save anything.
//
// Source: Graf and Lemire, Binary Fuse Filters: Fast and Smaller Than Xor Filters, 2022.
//
// Start reading at publisher.go, then peers.go, then bridge.go and relay.go. The test that shows it whole is TestConformance.
package summary
