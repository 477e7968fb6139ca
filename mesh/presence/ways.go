package presence

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/buildmesh/buildmesh/mesh/discover"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/gossip"
	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/mesh/trust"
)

// reachEvery is the mean time between two rounds of asking contacts while nobody is in sight; reachTime bounds one question,
// reachMost how many are asked in a round.
const (
	reachEvery = 10 * time.Second
	reachTime  = 3 * time.Second
	reachMost  = 5
)

// admission is the seat as gossip asks it.
type admission struct{ seat *member.Seat }

func (a admission) Certificate() []byte { return a.seat.Certificate().Marshal() }
func (a admission) Epoch() uint64       { return a.seat.Charter().Epoch }

func (a admission) Check(data []byte) (gossip.Admitted, error) {
	c, err := trust.ParseCertificate(data)
	if err != nil {
		return gossip.Admitted{}, err
	}
	if err := a.seat.Learn(c); err != nil {
		return gossip.Admitted{}, err
	}
	return gossip.Admitted{ID: c.Peer, Name: c.Name, Site: c.Site, Roles: uint8(c.Roles), Expires: c.Expires}, nil
}

// pinger is the control connection as mesh/health asks for it.
type pinger struct{ p *Presence }

func (q pinger) Ping(ctx context.Context, m roster.Member) error {
	if m.Control.IsValid() {
		q.p.o.Learned(m.ID, []netip.AddrPort{m.Control})
	}
	conn, err := q.p.o.Links.Control(ctx, m.ID)
	if err != nil {
		return err
	}
	_, err = facts.Ping(ctx, conn)
	return err
}

// address is where others reach this node's gossip; its port counts at the first start only.
func (p *Presence) address() netip.AddrPort {
	if bind := p.o.Listen.Addr(); !bind.IsUnspecified() {
		return netip.AddrPortFrom(bind, p.o.Listen.Port())
	}
	var toward []netip.Addr
	for _, m := range p.Roster.Now().In(roster.Alive) {
		toward = append(toward, m.Gossip.Addr())
	}
	for _, c := range p.o.Contacts() {
		for _, a := range c.Addresses {
			toward = append(toward, a.Addr())
		}
	}
	a := discover.Address(toward[:min(len(toward), reachMost)], p.o.Networks)
	if !a.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, p.o.Listen.Port())
}

// seeds are the addresses gossip tries beside the members it remembers.
func (p *Presence) seeds() []netip.AddrPort {
	out := append([]netip.AddrPort(nil), p.o.Static...)
	p.mu.Lock()
	d := p.discover
	p.mu.Unlock()
	if d != nil {
		for _, f := range d.Finds() {
			out = append(out, netip.AddrPortFrom(f.Addr, f.Gossip))
		}
	}
	return out
}

// heardNewer is told by gossip of a member that knows a newer charter.
func (p *Presence) heardNewer(id peer.ID, _ uint64) {
	select {
	case p.newer <- id:
	default: // whoever is asked first knows as much
	}
}

// update fetches newer charters from those who have them.
func (p *Presence) update(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-p.newer:
			asking, cancel := context.WithTimeout(ctx, reachTime)
			if conn, err := p.o.Links.Control(asking, id); err == nil {
				_ = hello.Sync(asking, conn, p.o.Seat) // the next card says again that it is newer
			}
			cancel()
		}
	}
}

// woke drops connections that a sleep has made stale, and asks who is there.
func (p *Presence) woke(time.Duration) {
	for _, m := range p.Roster.Now().Members {
		p.o.Links.Drop(m.ID)
	}
	p.mu.Lock()
	d := p.discover
	p.mu.Unlock()
	if d != nil {
		d.Ask()
	}
	p.lookAround()
}

// follow tells the transport where members are.
func (p *Presence) follow(ctx context.Context) {
	known := map[peer.ID]netip.AddrPort{}
	for version := uint64(0); ; {
		now, err := p.Roster.Next(ctx, version)
		if err != nil {
			return
		}
		version = now.Version
		for _, m := range now.Members {
			if m.State == roster.Alive && m.Control.IsValid() && known[m.ID] != m.Control {
				known[m.ID] = m.Control
				p.o.Learned(m.ID, []netip.AddrPort{m.Control})
			}
		}
	}
}

// Look goes looking for the others now, as after a join.
func (p *Presence) Look() { p.lookAround() }

func (p *Presence) lookAround() {
	select {
	case p.alone <- struct{}{}:
	default:
	}
}

// reach asks contacts where they gossip, as long as nobody is in sight.
func (p *Presence) reach(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.alone:
		}
		if len(p.Roster.Now().In(roster.Alive)) == 0 {
			p.askContacts(ctx)
		}
		timer.Reset(reachEvery/2 + rand.N(reachEvery))
	}
}

// askContacts asks some contacts, and joins the first that answers.
func (p *Presence) askContacts(ctx context.Context) {
	contacts := p.o.Contacts()
	rand.Shuffle(len(contacts), func(i, j int) { contacts[i], contacts[j] = contacts[j], contacts[i] })
	for _, c := range contacts[:min(len(contacts), reachMost)] {
		if c.Peer == p.o.Identity.ID() || len(c.Addresses) == 0 {
			continue
		}
		if at, err := p.ask(ctx, c); err == nil {
			if g := p.current(); g != nil {
				g.Join(at)
			}
			return
		}
	}
}

// errNoGossip is the answer of a member that does not gossip, or is too old to say where.
var errNoGossip = errors.New("it does not say where it gossips")

// ask asks one contact for the address of its gossip.
func (p *Presence) ask(ctx context.Context, c hello.Contact) (netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	conn, err := p.o.Links.Control(ctx, c.Peer)
	if err != nil {
		return netip.AddrPort{}, err
	}
	answer, err := facts.Ping(ctx, conn)
	switch {
	case err != nil:
		return netip.AddrPort{}, err
	case answer.Gossip == 0:
		return netip.AddrPort{}, errNoGossip
	}
	at := answer.At // where the connection really goes
	if !at.IsValid() && len(c.Addresses) > 0 {
		at = c.Addresses[0].Addr()
	}
	return netip.AddrPortFrom(at, answer.Gossip), nil
}
