// Package wire is a small mesh inside one process, for tests of what speaks to members: gRPC over
// pipes in memory instead of connections over a network.
//
// Nouns: Net (the mesh), Node (one member: a server, and its view of the others), Pipe (a listener in memory).
//
// Promises:
//   - A Node is a locate.Dialer and a locate.Members; Caller tells a server who calls.
//   - Freeze stops a node from answering as SIGSTOP would: calls to it hang until they are cancelled or
//     it thaws. Cut ends it: calls to it fail, and the others no longer count it as a member.
//   - Messages between nodes of two sites are counted (Crossed) and take as long as SetDelay says.
//   - Close ends every goroutine of the mesh.
//
// What it does not do: there is no authentication, no loss, and no delay within a site.
//
// Start reading at wire.go, New. The test that shows it whole is TestConformance in package onehop.
package wire
