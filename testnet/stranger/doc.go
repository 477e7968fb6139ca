// Command stranger is an adversary without a certificate: somebody on the same network who means no good.
//
//	stranger ATTACK HOST:PORT COUNT [DIR]
//
// Attacks:
//
//	connections  opens connections and says nothing
//	noise        opens connections and says random bytes
//	hellos       proves a peer id of its own, as anybody can, and then speaks a hello of random bytes
//	greetings    the same at the door that members use
//	knocks       shows an invite that nobody made, in the form of mesh/hello
//	claims       shows a certificate that it signed itself
//	charters     claims to know a newer charter of the mesh, which makes its own root the mesh's
//	packets      sends datagrams of random bytes and sizes, up to the largest there are
//	streams      announces gigabytes on gossip's stream and sends what is taken
//	obituaries   a member, whose directory is DIR, tells in gossip that others died, as if others said so
//
// It uses as many addresses of its own as COUNT allows when it may add them (root, in a lab), so that limits
// of connections an address do not protect the victim. It holds at most 256 connections at once, and ends by
// itself after two minutes.
//
// What it prints is how much it sent, how many connections gave it more than a closed door, and what it heard (up
// to four unlike answers, decrypted): whether that is right, the scenario decides.
//
// Start reading at main.go, main; then attack.go. It is seen at work in testnet/scenarios.
package main
