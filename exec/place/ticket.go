package place

import (
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ticketsAtOnce bounds how many peers of a group are gone through for one decision. The rest has its turn with the next.
const ticketsAtOnce = 64

// wish is what a ticket is for: Works of an invocation that reserve so many cores. A peer is left one for each width, else
// narrow Works would wait for the room of wide ones, or wide ones be passed by narrow ones for ever.
type wish struct {
	invocation string
	cores      float64
}

// leaveTickets makes sure that matching peers know that it waits: at most twice as many as its invocation has waiting.
// Peers are gone through in turn from where the last tickets were left.
func (c *Core) leaveTickets(it *item) {
	m, members := c.match(it), 0
	for _, g := range m.groups {
		members += len(g.members)
	}
	want := min(c.options.Tickets, 2*c.queue.counts[it.Invocation], members)
	w := wish{it.Invocation, c.needOf(it).cores}
	if c.tickets[w] >= want {
		return
	}
	if m.self {
		c.leave(it, c.self)
	}
	if it.Class == Local {
		return
	}
	for _, g := range m.groups {
		for looked := 0; looked < min(len(g.members), ticketsAtOnce) && c.tickets[w] < want; looked++ {
			g.cursor = (g.cursor + 1) % len(g.members)
			if n := g.members[g.cursor]; n != c.self && n.open && !c.now.Before(n.banned) {
				c.leave(it, n)
			}
		}
	}
}

// leave puts a ticket at n, unless there is one.
func (c *Core) leave(it *item, n *node) {
	d := c.needOf(it)
	cores, bytes := d.at(n)
	w := wish{it.Invocation, cores}
	if _, left := n.tickets[w]; left {
		return
	}
	n.tickets[w] = d.cores
	c.tickets[wish{it.Invocation, d.cores}]++
	c.decide(&Ticket{Peer: n.ID, Invocation: it.Invocation, Cores: cores, MemoryBytes: bytes})
}

// pick removes a ticket.
func (c *Core) pick(n *node, w wish) {
	cores, left := n.tickets[w]
	if !left {
		return
	}
	delete(n.tickets, w)
	w.cores = cores
	if c.tickets[w]--; c.tickets[w] <= 0 {
		delete(c.tickets, w)
	}
}

// Offered answers a slot that a peer holds for us: with the most urgent waiting Work that fits, of equals one of the invocation
// that left the ticket, else with pass, and the ticket is gone.
func (c *Core) Offered(now time.Time, id peer.ID, o Offer) {
	c.now = now
	n := c.peers[id]
	if n == nil || n.group == nil {
		c.decide(&Answer{Peer: id, Offer: o.ID})
		return
	}
	// The slot is held for us: it counts as free, whatever was believed.
	n.freeCores = max(n.freeCores, clamp(o.Cores, 0, n.slots))
	n.freeBytes = max(n.freeBytes, min(o.FreeBytes, n.Offer.MemoryBytes))
	var found *item
	looked := 0
	c.queue.each(func(it *item) bool {
		if found != nil && it.Priority != found.Priority {
			return false
		}
		if (found == nil || it.Invocation == o.Invocation) && c.takes(it, n) {
			found = it
		}
		looked++
		return looked < maxMisses && (found == nil || found.Invocation != o.Invocation)
	})
	if found == nil {
		c.pick(n, wish{o.Invocation, o.Cores})
		n.group.shelf.put(n) // free as far as we know; when another took it, asking costs one refusal
		c.decide(&Answer{Peer: id, Offer: o.ID})
		if c.queue.waiting == 0 {
			c.dispatch()
		}
		return
	}
	c.decide(&Answer{Peer: id, Offer: o.ID, Take: c.try(found, n, false)})
}

// takes reports whether it may run at n now.
func (c *Core) takes(it *item, n *node) bool {
	if !slices.Contains(c.match(it).groups, n.group) {
		return false
	}
	d := c.demand(it)
	return c.unfit(&d, n) == ""
}

// TicketLost notes that a peer forgot our tickets: its connection broke, or it restarted.
func (c *Core) TicketLost(now time.Time, id peer.ID) {
	c.now = now
	if n := c.peers[id]; n != nil {
		for w := range n.tickets {
			c.pick(n, w)
		}
	}
}
