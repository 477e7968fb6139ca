// Package doctor finds what is wrong on this machine and names the command that mends it.
//
// Nouns: Check (a question with the checks it presupposes), Finding (its answer), Result (a finding
// under its check's name).
//
// Promises:
//   - A check runs only when every check it needs did not fail; of a failed root the children are left
//     out, so that what is printed is the cause and not its consequences.
//   - Every finding that is not OK carries a fix: a command, or the step to take.
//   - Checks leave nothing behind. They need no running node; with one they ask the same questions.
//   - Run ends with its context: checks that did not get their turn say so.
//
// What it does not do: it mends nothing itself.
//
// Start reading at doctor.go, Run; then host.go, Host. The test that shows it whole is TestRun.
package doctor
