package node

import (
	"net/netip"
	"time"

	"github.com/buildmesh/buildmesh/mesh/discover"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/link"
)

// networkEvery is how often this node looks what kind of network it is on.
const networkEvery = 10 * time.Second

// network tells what kind of network this node reaches the others over. One goroutine uses it.
type network struct {
	address func() netip.Addr               // told to the others; the zero Addr: none
	link    func(netip.Addr) (string, bool) // the interface an address is of
	links   link.Reader
	metered func() bool // the desktop says that the network is paid by the byte

	class facts.Network
	asked time.Time // when class was found; zero: never
}

// machineNetwork is the network of this node.
func (n *Node) machineNetwork() *network {
	return &network{
		address: func() netip.Addr { return n.mesh.presence.State().Gossip.Address.Addr() },
		link:    discover.Link, links: link.Machine(),
		metered: func() bool {
			f, _ := n.lending.governor.Facts()
			return f.Metered
		},
	}
}

// at is the class at a moment.
func (w *network) at(now time.Time) facts.Network {
	if w.asked.IsZero() || now.Sub(w.asked) >= networkEvery || now.Before(w.asked) {
		w.class, w.asked = w.look(), now
	}
	return w.class
}

// look finds the class anew. What is on loopback goes over no network, metered or not.
func (w *network) look() facts.Network {
	a := w.address()
	if !a.IsValid() || a.IsLoopback() {
		return facts.AnyNetwork
	}
	if w.metered() {
		return facts.Metered
	}
	name, found := w.link(a)
	if !found {
		return facts.AnyNetwork
	}
	return w.links.Class(name)
}
