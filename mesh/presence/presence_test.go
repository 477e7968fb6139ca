package presence

import (
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/trust"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// node is a whole member on loopback, without discovery.
type node struct {
	*Presence
	links   *transport.Transport
	seat    *member.Seat
	options Options
	dir     string
	stop    func()

	mu    sync.Mutex // guards known
	known map[peer.ID][]netip.AddrPort
}

func (n *node) id() peer.ID { return n.seat.ID() }

func (n *node) learned(id peer.ID, at []netip.AddrPort) {
	n.mu.Lock()
	n.known[id] = at
	n.mu.Unlock()
	n.links.Learn(id, at)
}

func (n *node) contacts() []hello.Contact {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []hello.Contact
	for id, at := range n.known {
		out = append(out, hello.Contact{Peer: id, Addresses: at})
	}
	return out
}

// seated is a node with what dir keeps that is in nobody's company yet.
func seated(t *testing.T, name, dir string) *node {
	t.Helper()
	identity, err := peer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{dir: dir, known: map[peer.ID][]netip.AddrPort{}}
	if n.seat, err = member.Open(filepath.Join(dir, "mesh"), identity, member.Options{Name: name}); err != nil {
		t.Fatal(err)
	}
	door := hello.NewDoor(n.seat, nil, func(c *trust.Certificate, at []netip.AddrPort) { n.learned(c.Peer, at) })
	if n.links, err = transport.Open(transport.Options{Identity: identity, Gate: door, Listen: loopback}); err != nil {
		t.Fatal(err)
	}
	hello.Register(n.links.ControlServer(), n.seat, transport.Caller)
	n.options = Options{
		Dir: filepath.Join(dir, "mesh"), Identity: identity, Seat: n.seat, Links: n.links, Caller: transport.Caller, Listen: loopback,
		Learned: n.learned, Contacts: n.contacts, Log: slog.New(slog.DiscardHandler),
	}
	return n
}

// start runs a node with what dir keeps; contacts are what it knew before.
func start(t *testing.T, name, dir string, contacts ...hello.Contact) *node {
	t.Helper()
	n := seated(t, name, dir)
	for _, c := range contacts {
		n.learned(c.Peer, c.Addresses)
	}
	var err error
	if n.Presence, err = Open(n.options); err != nil {
		t.Fatal(err)
	}
	n.Board.Set(facts.Facts{Version: name, State: facts.Ready})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := n.links.Serve(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		if err := n.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		n.links.Close()
		serving.Wait()
	})
	t.Cleanup(n.stop)
	return n
}

// join takes n into the mesh of a steward.
func (n *node) join(t *testing.T, steward *node) {
	t.Helper()
	code, err := steward.seat.Invite(member.InviteOptions{Uses: 1, Lifetime: time.Hour, Seeds: steward.links.Addresses()})
	if err != nil {
		t.Fatal(err)
	}
	own := n.seat.Certificate()
	j, err := hello.Join(t.Context(), n.links, code, hello.Applicant{ID: own.Peer, Name: own.Name, Addresses: n.links.Addresses()})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.seat.Move(j.Charter, j.Certificate, j.Secret); err != nil {
		t.Fatal(err)
	}
	for _, c := range j.Contacts {
		n.learned(c.Peer, c.Addresses)
	}
	n.Look()
}

// sees waits until n has who in a state, at most 60 s.
func (n *node) sees(t *testing.T, who *node, want roster.State) roster.Member {
	t.Helper()
	began := time.Now()
	for version, deadline := uint64(0), began.Add(time.Minute); ; {
		now := n.Roster.Now()
		if m, found := now.Get(who.id()); found && m.State == want {
			t.Logf("%s has %s as %v after %v", n.seat.Certificate().Name, m.Name, want, time.Since(began).Round(time.Millisecond))
			return m
		}
		if time.Now().After(deadline) {
			m, _ := now.Get(who.id())
			t.Fatalf("%s has %s as %v (%s), want %v; gossip %+v", n.seat.Certificate().Name, who.seat.Certificate().Name, m.State, m.Reason, want, n.State().Gossip)
		}
		ctx, cancel := contextFor(t, time.Second)
		if now, err := n.Roster.Next(ctx, version); err == nil {
			version = now.Version
		}
		cancel()
	}
}

// heard waits until n has the facts of who, at most 30 s.
func (n *node) heard(t *testing.T, who *node, want facts.State) {
	t.Helper()
	ctx, cancel := contextFor(t, 30*time.Second)
	defer cancel()
	for version := uint64(0); ; {
		if h, found := n.Book.Get(who.id()); found && h.Facts.State == want {
			return
		}
		_, next, err := n.Book.Next(ctx, version)
		if err != nil {
			h, found := n.Book.Get(who.id())
			t.Fatalf("facts %+v (%v), want state %v", h, found, want)
		}
		version = next
	}
}

// TestCompany is the life of a mesh of three: they join by code, see each other and each other's facts, one leaves and comes
// back after a restart, one is turned out, and a second mesh is another company.
func TestCompany(t *testing.T) {
	ana, ben, cai := start(t, "ana", t.TempDir()), start(t, "ben", t.TempDir()), start(t, "cai", t.TempDir())
	ben.join(t, ana)
	ana.sees(t, ben, roster.Alive)
	cai.join(t, ana)
	for _, n := range []*node{ana, ben, cai} {
		for _, other := range []*node{ana, ben, cai} {
			if n == other {
				continue
			}
			if m := n.sees(t, other, roster.Alive); m.Name != other.seat.Certificate().Name || m.Control != other.links.Listening() {
				t.Errorf("%+v", m)
			}
			n.heard(t, other, facts.Ready)
		}
	}
	ben.Board.Set(facts.Facts{Version: "ben", State: facts.Paused, Reason: "lunch"})
	cai.heard(t, ben, facts.Paused)

	contacts := ben.contacts()
	ben.stop()
	ana.sees(t, ben, roster.Left)
	ben = start(t, "ben", ben.dir, contacts...)
	ana.sees(t, ben, roster.Alive)
	ben.sees(t, cai, roster.Alive)

	if err := ana.seat.Amend("", trust.Amendment{Revoke: []trust.Revocation{{Peer: cai.id(), Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	if _, found := ana.Roster.Now().Get(cai.id()); found {
		t.Error("who is turned out stays in the roster of who turned him out")
	}
	gone(t, ben, cai)

	ben.Goodbye(t.Context())
	if err := ben.seat.Leave(); err != nil {
		t.Fatal(err)
	}
	if left := ben.Roster.Now().Members; len(left) != 0 {
		t.Errorf("in a mesh of its own it still has %v", left)
	}
	ana.sees(t, ben, roster.Left)
}

// TestPortTaken: a second node on one machine gossips on another port, if it may.
func TestPortTaken(t *testing.T) {
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, may := range []bool{true, false} {
		n := seated(t, "ana", t.TempDir())
		n.options.Listen, n.options.AnyPort = netip.MustParseAddrPort(other.LocalAddr().String()), may
		p, err := Open(n.options)
		if (err == nil) != may {
			t.Errorf("any port %v: %v", may, err)
		}
		if err == nil {
			if at := p.State().Gossip.Address; at.Port() == n.options.Listen.Port() || at.Port() == 0 {
				t.Errorf("gossips at %v", at)
			}
			err = p.Close()
		} else {
			err = nil
		}
		if err != nil {
			t.Error(err)
		}
		n.links.Close()
	}
}
