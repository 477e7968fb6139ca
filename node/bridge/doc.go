// Package bridge lets Bazel and BuildStream take what the other one built.
//
// Nouns: Origin (answers this node's own URIs), artifact (what BuildStream remembers of a built element),
// Targets (which actions made a Bazel target, durable), Plugin (BuildStream's source plugin mesh_cas).
//
//	https://mesh.invalid/bst/PROJECT/ELEMENT/KEY.tar   a blob: the files of an artifact as a tar
//	https://mesh.invalid/tree/HASH-SIZE.tar            a blob: any tree of the store as a tar
//	mesh:bazel://TARGET[?path=P][&mnemonic=M]          a directory: the outputs of a Bazel target
//	urn:fdc:buildstream.build:2020:artifact:...        nothing of ours: what BuildStream pushes
//
// ELEMENT is BuildStream's: without ".bst" and with "-" for "/", or as the project has it. TARGET is a
// label, with or without "//" and repository. A directory has the outputs at their paths below the
// execution root, bazel-out/...; path narrows it down to what is below P, mnemonic to the actions of one
// kind.
//
// Promises:
//   - The same tree gives the same tar on every machine (package archive), so a checksum holds for good.
//   - What an answer names is in the store, complete, and kept alive by the index of assets.
//   - Targets notes each action result that passes a Bazel client by, in the background, at the cost of a
//     look-up in memory when it is known already; what was noted survives the end of the process, but for
//     the results of its last moments. It is bounded in bytes; the least recently noted targets go first.
//   - A target with a result that is no longer complete is not given without it: the call fails and says
//     which output is gone, and that one is forgotten.
//
// What it does not do: it does not know which of a target's outputs Bazel calls its default ones, nor that
// an action of an earlier build is no longer part of the target: all that were noted are given, for each
// output path the last one. It converts no digests: a target built with one digest function is not found
// under another.
//
// Start reading at origin.go, Origin. The tests that show it whole are TestArtifactBecomesTar and
// TestTargetBecomesDirectory, and with real clients testnet/clients, TestBridge.
package bridge
