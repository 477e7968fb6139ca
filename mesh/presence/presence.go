package presence

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/mesh/discover"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/gossip"
	"github.com/buildmesh/buildmesh/mesh/health"
	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/mesh/trust"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// goodbye bounds how long a node that leaves tells the others.
const goodbye = time.Second

// Links is what Presence needs of the transport: mesh/transport.
type Links interface {
	// Control is the connection for small calls to a member; the first call dials.
	Control(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error)
	// Drop closes what is open to a peer; the next call dials anew.
	Drop(id peer.ID)
	// ControlServer takes services before Serve.
	ControlServer() grpc.ServiceRegistrar
	// Listening is where members connect.
	Listening() netip.AddrPort
}

// Options are what a Presence is made from. All but the marked ones are needed.
type Options struct {
	Dir      string // where the roster is kept
	Identity *peer.Identity
	Seat     *member.Seat
	Links    Links
	Caller   func(context.Context) (peer.ID, bool) // who calls a service
	Listen   netip.AddrPort                        // for gossip, UDP and TCP; port 0: any
	AnyPort  bool                                  // when that port is taken, another one will do
	// Learned is told where a member's control connection is taken, as gossip says. It must not wait.
	Learned  func(peer.ID, []netip.AddrPort)
	Contacts func() []hello.Contact // members, and where their control connections were taken last
	Networks []netip.Prefix         // whose interfaces may be used; none: all
	Discover bool                   // tell of this node on the local network, and listen
	Static   []netip.AddrPort       // gossip addresses to try always; may be empty
	Log      *slog.Logger
}

// Presence is this node among the others. Make it with Open, end it with Close.
type Presence struct {
	o        Options
	Roster   *roster.Roster
	Board    *facts.Board // this node's own facts: set them
	Book     *facts.Book  // everybody else's
	health   *health.Health
	exchange *facts.Exchange
	started  time.Time

	changing sync.Mutex // one change of mesh at a time; taken before mu
	mu       sync.Mutex // guards all below
	gossip   *gossip.Gossip
	discover *discover.Discover // nil: there is none
	deaf     error              // why no beacons are heard
	mesh     peer.ID            // the root gossip speaks for
	closed   bool

	newer   chan peer.ID // members that know a newer charter
	alone   chan struct{}
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Open goes looking for the others.
func Open(o Options) (*Presence, error) {
	ctx, stop := context.WithCancel(context.Background())
	p := &Presence{o: o, Board: new(facts.Board), Book: new(facts.Book), started: time.Now(), stop: stop,
		newer: make(chan peer.ID, 8), alone: make(chan struct{}, 1)}
	p.Roster = roster.Open(o.Dir, o.Identity.ID(), func(err error) { o.Log.Warn("the roster is not kept", "err", err) })
	p.health = health.New(p.Roster, pinger{p})
	p.exchange = facts.New(facts.Options{
		Self: o.Identity.ID(), Roster: p.Roster, Board: p.Board, Book: p.Book, Dial: o.Links.Control, Caller: o.Caller,
		Seen: p.Roster.Seen, Broke: p.health.Check, Gossip: p.gossipPort,
	})
	meshv1.RegisterFactsServiceServer(o.Links.ControlServer(), p.exchange)
	if err := p.begin(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	o.Seat.Watch(p.changed)
	for _, loop := range []func(context.Context){p.follow, p.reach, p.update} {
		p.running.Go(func() { loop(ctx) })
	}
	return p, nil
}

// Close says goodbye and ends. Calls after the first do nothing.
func (p *Presence) Close() error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.mu.Lock()
	already := p.closed
	p.closed = true
	p.mu.Unlock()
	if already {
		return nil
	}
	err := p.end()
	p.stop()
	p.running.Wait()
	p.exchange.Close()
	p.health.Close()
	return errors.Join(err, p.Roster.Close())
}

// Label is the public name of a mesh on the wire: a hash of its root.
func Label(root peer.ID) string {
	h := trust.HashOf(root)
	return hex.EncodeToString(h[:])
}

// begin joins gossip and discovery of the mesh the seat is in. p.changing must be held, or nobody else know p.
func (p *Presence) begin() error {
	charter := p.o.Seat.Charter()
	g, err := p.gossipOn(p.o.Listen, charter)
	if err != nil && p.o.AnyPort && p.o.Listen.Port() != 0 { // as for a second node on this machine
		g, err = p.gossipOn(netip.AddrPortFrom(p.o.Listen.Addr(), 0), charter)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.gossip, p.mesh = g, charter.Root
	p.mu.Unlock()
	if p.o.Discover {
		p.beginDiscovery(charter, g)
	}
	return nil
}

// gossipOn begins to gossip at an address.
func (p *Presence) gossipOn(listen netip.AddrPort, charter *trust.Charter) (*gossip.Gossip, error) {
	epoch, key := p.key()
	return gossip.New(gossip.Options{
		Identity: p.o.Identity, Admission: admission{p.o.Seat}, Roster: p.Roster, Network: gossip.ListenOn(listen),
		Label: Label(charter.Root), Epoch: epoch, Key: key, Control: p.o.Links.Listening().Port(), Bulk: p.o.Links.Listening().Port(),
		Address: p.address, Seeds: p.seeds, Newer: p.heardNewer, Woke: p.woke, Log: p.o.Log,
	})
}

// beginDiscovery tells of this node on the local network. A machine where that is impossible is no error: the other ways
// are enough.
func (p *Presence) beginDiscovery(charter *trust.Charter, g *gossip.Gossip) {
	d, err := discover.Open(discover.Options{
		Self: discover.Self{Label: Label(charter.Root), Mesh: discover.Clean(charter.Name), Peer: p.o.Identity.ID(),
			Gossip: p.gossipPort(), Hello: p.o.Links.Listening().Port()},
		Allowed: p.o.Networks, MDNS: true, Members: func() int { return len(p.Roster.Now().Members) },
		Found: func(f discover.Find) { g.Join(netip.AddrPortFrom(f.Addr, f.Gossip)) },
	})
	p.mu.Lock()
	p.discover, p.deaf = d, err
	p.mu.Unlock()
}

// end leaves gossip and discovery. p.changing must be held.
func (p *Presence) end() error {
	p.mu.Lock()
	g, d := p.gossip, p.discover
	p.gossip, p.discover = nil, nil
	p.mu.Unlock()
	var err error
	if d != nil {
		err = d.Close()
	}
	if g != nil {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		g.Leave(ctx)
		err = errors.Join(err, g.Close())
	}
	return err
}

// Goodbye tells the others, with the certificate they know, that this node leaves their mesh. The seat is to move next.
func (p *Presence) Goodbye(ctx context.Context) {
	if g := p.current(); g != nil {
		ctx, cancel := context.WithTimeout(ctx, goodbye)
		defer cancel()
		g.Leave(ctx)
	}
}

// changed follows the seat: another mesh, another charter, peers that are out.
func (p *Presence) changed(c member.Change) {
	if c.Moved {
		if err := p.move(); err != nil {
			p.o.Log.Error("the new mesh cannot be gossiped with", "err", err)
		}
		return
	}
	for _, id := range c.Out {
		p.Roster.Forget(id)
	}
	if g := p.current(); g != nil {
		epoch, key := p.key()
		g.Install(epoch, key)
		g.Recheck()
	}
}

// move leaves one mesh's company for another's.
func (p *Presence) move() error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil
	}
	err := p.end()
	for _, m := range p.Roster.Now().Members {
		p.Roster.Forget(m.ID)
		p.o.Links.Drop(m.ID)
	}
	if err = errors.Join(err, p.begin()); err != nil {
		return fmt.Errorf("move to another mesh: %w", err)
	}
	p.lookAround()
	return nil
}

// key is gossip's newest key and its epoch.
func (p *Presence) key() (uint64, gossip.Key) {
	secrets, complete := p.o.Seat.Secrets()
	epoch := p.o.Seat.Charter().Epoch
	if !complete {
		epoch-- // the newest that is known is that of the charter before
	}
	return epoch, gossip.Key(secrets[0].For("gossip"))
}

// current is gossip as it runs now; nil while it is changed.
func (p *Presence) current() *gossip.Gossip {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gossip
}

// gossipPort is the port gossip listens on; 0 while there is none.
func (p *Presence) gossipPort() uint16 {
	if g := p.current(); g != nil {
		return g.Status().Address.Port()
	}
	return 0
}
