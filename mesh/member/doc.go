// Package member is this node's own place in a mesh: its certificate, the charter it goes by, the
// mesh's secret, the invites it gave, and whose certificates it has seen; kept on disk.
//
// Nouns: Seat (all of that), ledger (the invites of this node and whom each admitted), Change (what
// others must know of: a new charter, another mesh, peers that are out).
//
//	Open    first start: found a mesh of one, with a root key of its own, so that nobody must know of
//	        meshes to start; later: read what is there
//	Learn   a certificate somebody showed: verify it and remember its bearer
//	Admits  is a peer remembered, and does its certificate still hold?
//	Adopt   a newer charter takes the place of the old one; who it turns out is forgotten
//	Invite, Admit, Renew   what a steward does
//	Move    join another mesh;  Leave  found a mesh of one again
//
// Promises:
//   - Safe for concurrent use. Admits costs a look-up; signatures are verified once per certificate and
//     charter.
//   - The charter, certificate and secret change together, by one rename; an epoch never goes back.
//   - A use of an invite is on disk before Admit returns: a code is not good for more peers after a crash
//     or restart. One peer that asks twice is counted once.
//   - Every file is mode 0600 in a directory of mode 0700. The root key is read for a moment when it
//     is needed, and may be anywhere.
//
// What it does not do: it opens no connection (mesh/hello does) and finds nobody.
//
// Start reading at seat.go, Open. The test that shows it whole is TestAdmission.
package member
