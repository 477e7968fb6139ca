// Package trash removes directory trees in the background.
//
// An action may leave a hundred thousand files, and nobody should wait for their removal. A Bin takes a
// path away at once, by renaming it into its own directory, and a goroutine removes what is there.
//
// Noun: Bin.
//
// Promises: after Throw the path is free. Trees with directories their owner cannot enter or write are
// removed all the same, and no symbolic link is followed. What is left when the process dies or Close
// comes first is removed after the next Open. All methods are safe for concurrent use.
//
// What it does not do: it reports no failure to remove; such a tree is tried again at the next wake-up.
//
// Start reading at bin.go, Throw. The test that shows it whole is TestBin.
package trash
