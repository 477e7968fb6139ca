// Package platform turns the platform properties of an action into a Request and compares it with an Offer.
//
// Nouns: Request (what an action asks of its executor), Offer (what one machine has), class (how a
// property is compared).
//
// The classes:
//   - exact: OSFamily, Pool, host-fingerprint
//   - subset: ISA (Arch is another name for it); every value asked must be offered
//   - minimum, and reserved while the action runs: cores, min-cores, EstimatedCPU, min-mem, EstimatedMemory
//   - interpreted: unixUID, unixGID, network (dockerNetwork is another name for it), container-image,
//     chrootRootDigest, remoteApisSocketPath, InputRootAbsolutePath, no-remote-exec
//   - harmless: listed in harmless.go with who sends them; read by nobody here
//   - everything else is unknown and refused by its name
//
// Values are normalised: OSFamily is case-folded and darwin is macos; amd64 and x86_64 are x86-64;
// arm64 and aarch64 are arm-a64.
//
// Promises: parsing and matching are pure, read no clock and no machine, and are safe for concurrent
// use. Machine alone looks at the computer it runs on. Errors are *InvalidError (a known property with a
// value that means nothing), *UnknownError (a property nobody here knows) and *MismatchError (a property
// this offer does not fulfil; Nearer sums up those of several machines); each names the property.
//
// What it does not do: it reserves nothing (exec/slot does) and sets nothing up (exec/run does).
//
// Source: build.bazel.remote.execution.v2, message Platform, and its lexicon platform.md.
//
// Start reading at request.go, Parse. The test that shows it whole is TestMatch.
package platform
