// Package transporttest gives tests real transports on loopback that know each other, without the
// ceremony of certificates.
//
// Nouns: Gate (a transport.Gate that lets in whom it is told), Node (an identity and its transport).
//
// What it does not do: no certificates, no names, no discovery; mesh/hello has the real Gate.
//
// Start reading at node.go, Start. The test that shows it whole is TestCalls in mesh/transport.
package transporttest
