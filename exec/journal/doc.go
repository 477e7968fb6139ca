// Package journal keeps what became of the actions that this node's clients asked for, so that somebody can ask why.
//
// Nouns: Journal (the entries, newest last), entry (one action as it went: journalv1.Entry), subject (what makes two entries
// be about the same piece of work: target, mnemonic and output), Hit (a known result given to a client), remark (what became
// known of an action later), Change (a difference between two actions).
//
//	facts in:  Ended (every flight), Hit (every known result a client was given), Remark
//	answers:   Find and Before, then Compare, which reads commands and input trees from the store
//	from aside: Read, which goes through the entries of a journal that another process may write
//	at Open:   Learned, what exec/place learned from each action, so that its estimates outlive the process
//
// On disk an entry is a record: length, CRC-32C, protobuf. Records stand in segments that are only appended to; the oldest
// segment goes when there are too many bytes or entries.
//
// Promises:
//   - Ended, Hit and Remark never wait: what the writer cannot keep up with is left out and counted (Lost).
//   - A process killed at any moment leaves a readable journal: a record that is cut off ends its segment, nothing else. It
//     is written at once, but not forced to disk: a power cut may take the last seconds.
//   - The order is that of sequence numbers. Clocks give only what is shown: a clock that jumps makes no entry come earlier,
//     and no duration negative.
//   - The bytes on disk and the entries are bounded (Options); so is every field of an entry.
//
// What it does not do: it decides nothing, and it keeps no blobs: what the store has forgotten of an earlier action cannot be
// compared any more, which Compare says.
//
// Start reading at journal.go, then entry.go and compare.go. The test that shows it whole is TestLifeOfAJournal.
package journal
