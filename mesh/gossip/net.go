package gossip

import (
	"fmt"
	"log"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

// Network makes transports: the real one with ListenOn, a simulated one in the laboratory.
type Network interface {
	// Listen takes packets and streams for a node that tells others it is at this address. With port 0 it
	// chooses one; port is the one it has.
	Listen(at netip.AddrPort) (t memberlist.NodeAwareTransport, port uint16, err error)
}

// ListenOn is the network of this machine: UDP and TCP on one port of one address, or of all with an
// unspecified address. port 0 takes any free one at the first start and keeps it.
func ListenOn(bind netip.AddrPort) Network { return &machineNetwork{bind: bind} }

type machineNetwork struct{ bind netip.AddrPort }

// bindTries is how often a free port is sought for which UDP and TCP are both free.
const bindTries = 10

func (m *machineNetwork) Listen(netip.AddrPort) (memberlist.NodeAwareTransport, uint16, error) {
	tries := 1
	if m.bind.Port() == 0 {
		tries = bindTries
	}
	var err error
	for range tries {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{m.bind.Addr().String()}, BindPort: int(m.bind.Port()), Logger: log.New(nowhere{}, "", 0),
		})
		if err == nil {
			port := uint16(t.GetAutoBindPort())
			m.bind = netip.AddrPortFrom(m.bind.Addr(), port)
			return t, port, nil
		}
	}
	return nil, 0, fmt.Errorf("listen for gossip on %s: %w", m.bind, err)
}

// nowhere drops what is written to it.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
