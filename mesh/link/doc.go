// Package link tells what kind of network an interface of this machine is on: a member on a wireless or metered
// one is asked for less.
//
// Nouns: Reader (gives the class of an interface by its name), Machine (the Reader of this machine), Fake (one
// that gives what it was told).
//
//	wireless  the interface is 802.11
//	metered   it is a modem of a mobile network; whether another one is paid by the byte only the desktop knows
//	VPN       it is a tunnel: packets go through another interface, at a size and a speed nobody can tell
//	wired     it is a device with a cable
//
// Promises: a bridge, a bond or a VLAN is of the class of what it stands on, the worst of several. What cannot be
// told is facts.AnyNetwork and no error: nothing depends on it. A Reader is safe for concurrent use.
//
// What it does not do: it chooses no interface; discover.Address does.
//
// Start reading at link.go, Class. The test that shows it whole is TestClass.
package link
