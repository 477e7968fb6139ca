// Package trust says who belongs to a mesh: certificates, charters and invites, and the verdicts on them.
//
// Nouns: Root (the key pair that founds a mesh; its public half is the mesh's identity), Charter (what
// the root signed last: the mesh's name, its stewards, who was revoked; newer ones have a higher epoch),
// steward (a member that may admit and renew others, with its own node key), Certificate (a peer is a
// member until a time, signed by the root or a steward), Invite (a short-lived key with which at most n
// peers may be admitted), Code (what a person types to join), Phrase (words both sides can compare).
//
//	root -signs-> charter -names-> steward -signs-> invite, certificate
//
// The chain of a member is root, steward, certificate. The invite key signs what a joiner asks for and
// never a certificate: an invite code found later in a chat log then admits nobody, however a clock is set.
//
// Promises:
//   - Everything here is a value: facts and time go in, verdicts come out. No I/O but the root's key file,
//     no clock, no state; safe for concurrent use as long as nobody changes a value.
//   - An encoding is deterministic, and a value has exactly one: Parse of anything else fails with
//     ErrMalformed. A certificate takes at most MaxCertificate bytes, so that it fits gossip's metadata.
//   - Every signature is made over a purpose, the root's key and the value: none can be taken for another.
//   - A charter holds an ex-steward's certificates for valid that were issued before its end; whoever
//     stole a steward's key can date certificates back, and for no longer than Lifetime.
//
// Clocks: a certificate is refused after its end, and when issued more than Skew in the future. Members
// renew it when a third of Lifetime is left, so a clock a day off harms nobody.
//
// What it does not do: it does not count an invite's uses (mesh/member does), it sends nothing.
//
// Start reading at charter.go, Charter.Check. The test that shows it whole is TestChain.
package trust
