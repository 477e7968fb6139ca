// Package registry fetches parts of container images: from registries over the network, and from OCI
// layouts on the disk.
//
// Nouns: Registry (implements exec/image's interface of that name), Options.
//
// Promises:
//   - Connections go to public addresses only, and to registries that Options.Allowed names, at whatever
//     address; the address itself is checked when it is dialed, so redirects and resolvers change nothing.
//     With Options.Allowed, no other registry is asked at all.
//   - A registry that does not answer, or answers with a fault of its own, is image.ErrUnreachable; an
//     image it does not have or does not show to everybody is image.ErrNotFound.
//   - Nothing is sent that identifies the owner: no stored logins are used.
//   - It keeps no state but idle connections; Close ends those. Safe for concurrent use.
//
// What it does not do: it checks no digest (exec/image does), unpacks nothing, retries nothing beyond
// what go-containerregistry does.
//
// Start reading at registry.go. The test that shows it whole is TestPull.
package registry
