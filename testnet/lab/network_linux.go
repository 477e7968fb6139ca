package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
)

// Network is the subnet all machines of a lab are in. Gateway is the machines' default router, which leads nowhere.
var (
	Network = netip.MustParsePrefix("10.77.0.0/16")
	Gateway = netip.MustParseAddr("10.77.0.1")
)

// nowhere is a hardware address that no port of a lab has.
const nowhere = "02:00:00:00:00:02"

// network is the switch: a namespace of its own with bridges, of which one port of every machine is a part.
type network struct {
	space   *space
	crossed *traffic // over cables

	mu       sync.Mutex // guards all below
	last     netip.Addr // given to a machine by free
	ports    []*port
	segments int      // bridges besides the first
	cables   []*cable // to the first bridge from each other one
	lost     []loss
	random   *rand.Rand
}

// port is a machine's place on the switch.
type port struct {
	space   *space // the machine's side; its interface is eth0
	name    string // of the interface on the switch's side
	address netip.Addr
}

// loss is one direction between two machines in which everything is lost.
type loss struct {
	from *port
	to   netip.Addr
}

// bridge names the bridge of a segment.
func bridge(segment int) string { return fmt.Sprintf("segment%d", segment) }

func newNetwork(seed int64) (*network, error) {
	s, err := newSpace()
	if err != nil {
		return nil, err
	}
	n := &network{space: s, crossed: newTraffic(), last: Gateway.Next(), random: rand.New(rand.NewPCG(uint64(seed), 0))}
	if err := n.addBridge(0); err != nil {
		s.close()
		return nil, err
	}
	if err := s.ip(fmt.Sprintf("address add %s/%d dev %s", Gateway, Network.Bits(), bridge(0))); err != nil {
		s.close()
		return nil, err
	}
	return n, nil
}

// addBridge makes a bridge that forwards at once and every multicast to everybody, as a plain switch does.
func (n *network) addBridge(segment int) error {
	return n.space.ip(
		fmt.Sprintf("link add %s type bridge forward_delay 0 mcast_snooping 0", bridge(segment)),
		fmt.Sprintf("link set %s up", bridge(segment)))
}

// free is an address no machine was given yet.
func (n *network) free() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if n.last = n.last.Next(); n.offer(n.last) == nil {
			return n.last
		}
	}
}

// offer tells why a machine cannot be given an address, nil when it can. The caller holds mu.
func (n *network) offer(address netip.Addr) error {
	if !Network.Contains(address) {
		return fmt.Errorf("address %s is not in %s", address, Network)
	}
	if slices.ContainsFunc(n.ports, func(p *port) bool { return p.address == address }) {
		return fmt.Errorf("address %s is another machine's", address)
	}
	return nil
}

// plug makes a machine with that address, on the first segment.
func (n *network) plug(address netip.Addr) (*port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.offer(address); err != nil {
		return nil, err
	}
	s, err := newSpace()
	if err != nil {
		return nil, err
	}
	p := &port{space: s, name: fmt.Sprintf("port%d", len(n.ports)), address: address}
	err = n.space.ip(
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", p.name, s.path()),
		fmt.Sprintf("link set %s master %s up", p.name, bridge(0)))
	if err == nil {
		err = s.ip(append([]string{"link set eth0 up"}, p.addressed()...)...)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	n.ports = append(n.ports, p)
	return p, nil
}

// addressed are the commands that give the port its address and routes.
func (p *port) addressed() []string {
	return []string{
		fmt.Sprintf("address add %s/%d broadcast + dev eth0", p.address, Network.Bits()),
		fmt.Sprintf("route add default via %s dev eth0", Gateway),
	}
}

// move gives the machine another address; connections of the old one hang, as they do on a laptop.
func (n *network) move(p *port, address netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.offer(address); err != nil {
		return err
	}
	p.address = address
	return p.space.ip(append([]string{"address flush dev eth0"}, p.addressed()...)...)
}

// carrier pulls or plugs the machine's cable.
func (n *network) carrier(p *port, on bool) error {
	state := "down"
	if on {
		state = "up"
	}
	return n.space.ip(fmt.Sprintf("link set %s %s", p.name, state))
}

// lose makes everything vanish that from sends to the address, and nothing else: the frames go to a hardware address
// that nobody has. Multicasts and broadcasts are not concerned.
func (n *network) lose(from *port, to netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := from.space.ip(fmt.Sprintf("neighbour replace %s lladdr %s nud permanent dev eth0", to, nowhere)); err != nil {
		return err
	}
	n.lost = append(n.lost, loss{from, to})
	return nil
}

// split puts every group on a segment of its own. Without a link no frame passes between them; with one they are joined
// by slow wires. Machines in no group stay together, apart from the groups.
func (n *network) split(groups [][]*port, link *Link) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.join(); err != nil {
		return err
	}
	for _, group := range groups {
		n.segments++
		if err := n.addBridge(n.segments); err != nil {
			return err
		}
		var commands []string
		for _, p := range group {
			commands = append(commands, fmt.Sprintf("link set %s master %s", p.name, bridge(n.segments)))
		}
		if err := n.space.ip(commands...); err != nil {
			return err
		}
		if link == nil {
			continue
		}
		c, err := newCable(n.space, n.segments, *link, n.random.Uint64(), n.crossed)
		if err != nil {
			return err
		}
		n.cables = append(n.cables, c)
	}
	return nil
}

// heal undoes every split and every loss.
func (n *network) heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	errs := []error{n.join()}
	for _, l := range n.lost {
		errs = append(errs, l.from.space.ip(fmt.Sprintf("neighbour del %s dev eth0", l.to)))
	}
	n.lost = nil
	return errors.Join(errs...)
}

// join puts every machine back on the first segment. The caller holds mu.
func (n *network) join() error {
	for _, c := range n.cables {
		c.close()
	}
	n.cables = nil
	if n.segments == 0 {
		return nil
	}
	var commands []string
	for _, p := range n.ports {
		commands = append(commands, fmt.Sprintf("link set %s master %s", p.name, bridge(0)))
	}
	for ; n.segments > 0; n.segments-- {
		commands = append(commands, "link del "+bridge(n.segments))
	}
	return n.space.ip(commands...)
}

// close ends the network. No process may be left in it.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.cables {
		c.close()
	}
	for _, p := range n.ports {
		p.space.close()
	}
	n.space.close()
}
