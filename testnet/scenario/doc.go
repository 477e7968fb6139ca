// Package scenario is a small language in which claims about a mesh are told as stories, and checked.
//
// Nouns: Script (a parsed text file), claim (its first paragraph, a comment), Step (one sentence), Phrase (a
// form of sentence), transcript (what the steps printed, in the file itself as lines that begin with ">"),
// World (where the story is played: real nodes in a lab, or simulated ones).
//
//	# A killed peer is known dead to all within ten seconds, and back ten seconds after it has come back.
//
//	mesh ana ben cai
//	kill ben
//	within 10s everyone sees ben dead
//	> ana: ben dead, cai alive
//	> cai: ana alive, ben dead
//	start ben
//	within 10s everyone sees ben alive
//
// One sentence a line; Phrases lists the forms and what each means. Names are lower-case words; n1..n50 stands
// for fifty of them, everyone for all nodes that run and are awake. A sentence holds or the scenario ends
// there. What it prints must equal the lines below it that begin with ">"; `go test -update` rewrites those.
//
// Promises: Parse is pure, bounded (64 KiB, 1,000 names a sentence) and never panics; Render gives back every
// byte of the file but the transcript; Play runs one step after the other in the caller's goroutine.
//
// What it does not do: it knows no node and no network: a World does. It normalises nothing: a World prints
// neither times nor ids that differ from run to run.
//
// Start reading at parse.go, Parse. The test that shows it whole is TestPlay.
package scenario
