// Package presence keeps a node in the company of the others of its mesh: it joins gossip, health, discovery
// and facts over one seat and one transport.
//
// Nouns: Presence (all of that), contact (a member and where its control connection was last taken), reach (asking
// the contacts where they gossip, while nobody is in sight).
//
// How a node finds the others, each way enough by itself:
//
//	roster     the members it had before its restart, by gossip's own rejoin loop
//	discovery  beacon and mDNS on the same network
//	static     addresses from the configuration
//	reach      contacts, asked over an authenticated connection for their gossip port: works after a join
//	           by code, and where UDP does not pass
//
// Promises:
//   - Whoever is in the roster has a certificate that counts; whoever is turned out is forgotten at once, and
//     gossip's key changes with the charter.
//   - Another mesh (join, leave, found) makes everything known of the former one void before the new one begins.
//   - Addresses that gossip tells are given to the transport; who answers there, TLS proves.
//   - Roster, Book and Board stay the same values for the life of a Presence.
//   - Close says goodbye and waits for every goroutine.
//
// What it does not do: it decides nothing about trust (mesh/member), carries no content and no actions.
//
// Start reading at presence.go, Open. The test that shows it whole is TestCompany.
package presence
