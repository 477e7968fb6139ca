// Package receipt is what an executor answers for: an action result with its signature.
//
// Nouns: Statement (which action gave which result, where and when), Receipt (a statement, signed),
// Policy (whose receipts this node believes), Store (the receipts known here, as the exact bytes that
// were signed), Evidence (receipts about one action that disagree), Sample (which actions are run again
// to compare).
//
// How a result from elsewhere is believed:
//  1. Parse checks form and signature; Check that it is about the action asked for, in this mesh, by a
//     peer that is a member now.
//  2. Put stores it beside the others. When two of them disagree about the outputs, the action is
//     quarantined: the evidence is kept and shown, and nobody's receipt for it is believed any more but
//     this node's own. Nobody is accused: an action that is not deterministic looks the same.
//  3. Policy.Choose takes one of those left: one's own always, else as the policy says.
//
// Promises:
//   - What was stored comes back byte for byte; a signature covers everything that is decided by.
//   - A receipt is of one mesh, one action and one root: for another it is ErrInvalid.
//   - Revoke drops what a peer signed that came here since a time, and refuses what comes later. The peer's own clock is
//     not asked: it could sign yesterday's date today.
//   - Compare looks at what an action leaves behind: files, directories, symlinks and the exit code,
//     not at times nor at what it printed.
//   - Safe for concurrent use.
//
// What it does not do: it runs nothing, sends nothing, and does not look whether outputs are there.
//
// Start reading at receipt.go, Sign and Parse; then store.go. The test that shows it whole is
// TestDisagreement.
package receipt
