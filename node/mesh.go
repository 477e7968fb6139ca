package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/presence"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/trust"
	"github.com/buildmesh/buildmesh/node/config"
)

// meshed is the part of a node that belongs to a mesh.
type meshed struct {
	seat      *member.Seat
	transport *transport.Transport
	keeper    *hello.Keeper
	book      *addressBook
	presence  *presence.Presence
}

// openMesh takes this node's seat in its mesh and listens for other members; nothing, when the
// configuration says so: the node then stands alone.
func (n *Node) openMesh(context.Context) error {
	if !n.config.Mesh.Enabled {
		return nil
	}
	dir := filepath.Join(n.config.Dir.State, "mesh")
	seat, err := member.Open(dir, n.identity, member.Options{
		Name: trust.Clean(n.config.Node.Name, trust.MaxName), Site: trust.Clean(n.config.Mesh.Site, trust.MaxSite),
	})
	if err != nil {
		return err
	}
	m := &meshed{seat: seat, book: openAddressBook(filepath.Join(dir, "addresses.json"))}
	door := hello.NewDoor(seat, m.book.contacts, func(c *trust.Certificate, at []netip.AddrPort) {
		m.learn(c.Peer, at)
		n.log.Info("a peer joined the mesh", "peer", c.Peer.String(), "name", c.Name,
			"phrase", trust.Phrase(seat.Charter().Root, seat.ID(), c.Peer))
	})
	if m.transport, err = n.openTransport(door); err != nil {
		return err
	}
	n.onClose("mesh", m.transport.Close)
	for _, c := range m.book.contacts() {
		m.transport.Learn(c.Peer, c.Addresses)
	}
	seat.Watch(m.changed)
	hello.Register(m.transport.ControlServer(), seat, transport.Caller)
	m.keeper = hello.NewKeeper(seat, m.transport, time.Now)
	n.mesh = m
	return nil
}

// openTransport listens. When the port of the default is taken, as by a second node on this machine,
// any other will do: members learn it.
func (n *Node) openTransport(door *hello.Door) (*transport.Transport, error) {
	o := transport.Options{Identity: n.identity, Gate: door}
	var err error
	if o.Listen, err = netip.ParseAddrPort(n.config.Listen.Mesh); err != nil {
		return nil, fmt.Errorf("listen.mesh = %q is not ip:port; 0.0.0.0:8982 listens on every interface", n.config.Listen.Mesh)
	}
	if quic := n.config.Listen.QUIC; quic != "" {
		if o.QUIC, err = netip.ParseAddrPort(quic); err != nil {
			return nil, fmt.Errorf("listen.quic = %q is not ip:port", quic)
		}
	}
	t, err := transport.Open(o)
	if err != nil && n.config.Origin("listen.mesh").Kind == config.Default {
		o.Listen = netip.AddrPortFrom(o.Listen.Addr(), 0)
		t, err = transport.Open(o)
	}
	if err != nil {
		return nil, fmt.Errorf("listen.mesh: %w; choose another with --set listen.mesh=IP:PORT", err)
	}
	return t, nil
}

// changed drops peers that are members no more.
func (m *meshed) changed(c member.Change) {
	for _, id := range c.Out {
		m.transport.Forget(id)
		m.book.forget(id)
	}
}

// learn notes where a member is.
func (m *meshed) learn(id peer.ID, at []netip.AddrPort) {
	if len(at) == 0 || id == m.seat.ID() {
		return
	}
	m.book.learn(id, at)
	m.transport.Learn(id, at)
}

// serve answers members and keeps the certificate fresh until the transport is closed.
func (m *meshed) serve() error {
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() { m.keeper.Run(ctx) })
	err := m.transport.Serve()
	cancel()
	keeping.Wait()
	return err
}

// Control is the connection for small calls to a member.
func (m *meshed) Control(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error) {
	return m.transport.Control(ctx, id)
}

// addressBook is where members were last heard to be, on disk, so that a restart finds the mesh again.
type addressBook struct {
	path string
	mu   sync.Mutex // guards known and the file
	// known is by peer id in text form.
	known map[string][]netip.AddrPort
}

// openAddressBook reads the file; one that cannot be read is begun anew.
func openAddressBook(path string) *addressBook {
	b := &addressBook{path: path, known: make(map[string][]netip.AddrPort)}
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &b.known) != nil {
		clear(b.known)
	}
	return b
}

// contacts are all that are known, by peer.
func (b *addressBook) contacts() []hello.Contact {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []hello.Contact
	for text, at := range b.known {
		if id, err := peer.Parse(text); err == nil {
			out = append(out, hello.Contact{Peer: id, Addresses: at})
		}
	}
	slices.SortFunc(out, func(x, y hello.Contact) int { return slices.Compare(x.Peer[:], y.Peer[:]) })
	return out
}

// learn replaces what is known of a peer.
func (b *addressBook) learn(id peer.ID, at []netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Equal(b.known[id.String()], at) {
		return
	}
	b.known[id.String()] = at
	b.write()
}

// forget removes a peer.
func (b *addressBook) forget(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, id.String())
	b.write()
}

// write stores the book. b.mu must be held. A failure costs a search after the next start.
func (b *addressBook) write() {
	data, err := json.Marshal(b.known)
	if err != nil {
		return
	}
	temp := b.path + ".new"
	if os.WriteFile(temp, data, 0o600) == nil {
		_ = os.Rename(temp, b.path)
	}
}

// seeds are the addresses an invite should name: those others can reach first, loopback only when
// nothing else is listened on.
func (m *meshed) seeds() []netip.AddrPort {
	all := m.transport.Addresses()
	far := slices.DeleteFunc(slices.Clone(all), func(a netip.AddrPort) bool { return a.Addr().IsLoopback() })
	if len(far) == 0 {
		return all
	}
	if first, ok := outward(); ok { // the interface the default route takes
		slices.SortStableFunc(far, func(a, b netip.AddrPort) int { return rank(a.Addr() == first) - rank(b.Addr() == first) })
	}
	return far
}

// rank sorts what is true first.
func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// outward is the address this machine has towards the default route. No packet is sent.
func outward() (netip.Addr, bool) {
	conn, err := net.Dial("udp4", "192.0.2.1:9") // TEST-NET-1: routed like any address, owned by nobody
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return local.Addr(), err == nil
}
