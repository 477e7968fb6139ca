package lease

import (
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ticket is one that waits.
type ticket struct {
	Ticket
	passed int // how often one behind it was offered a slot first
}

// tickets holds who waits: initiators in turn, and the invocations of each in turn.
type tickets struct {
	turns  []*holder
	offers map[uint64]*offer
	next   uint64
	count  int
}

// holder is one initiator's tickets.
type holder struct {
	caller peer.ID
	list   []*ticket
}

// offer is a slot held for a ticket.
type offer struct {
	id     uint64
	ticket *ticket
	cores  float64
	bytes  int64
	until  time.Time
}

func newTickets() tickets { return tickets{offers: map[uint64]*offer{}} }

// Ticket leaves a ticket. One of the same invocation and as many cores replaces it; too many are not kept.
func (b *Book) Ticket(now time.Time, t Ticket) {
	if !(t.Cores > 0 && t.Cores <= b.cores) || t.MemoryBytes < 0 || t.MemoryBytes > maxMemory || len(t.Invocation) > maxInvocation || b.bytes > 0 && t.MemoryBytes > b.bytes {
		return
	}
	at := slices.IndexFunc(b.tickets.turns, func(h *holder) bool { return h.caller == t.Caller })
	if at < 0 {
		at = len(b.tickets.turns)
		b.tickets.turns = append(b.tickets.turns, &holder{caller: t.Caller})
	}
	h := b.tickets.turns[at]
	if i := slices.IndexFunc(h.list, func(x *ticket) bool { return x.Invocation == t.Invocation && x.Cores == t.Cores }); i >= 0 {
		h.list[i].Ticket = t
	} else if len(h.list) < maxTickets {
		h.list = append(h.list, &ticket{Ticket: t})
		b.tickets.count++
	}
	b.offer(now)
}

// offer gives free slots to those whose turn it is.
func (b *Book) offer(now time.Time) {
	for {
		h, t := b.turn()
		if t == nil {
			return
		}
		b.tickets.next++
		o := &offer{id: b.tickets.next, ticket: t, cores: t.Cores, bytes: t.MemoryBytes, until: now.Add(OfferTTL)}
		b.tickets.offers[o.id] = o
		b.hold(o, 1)
		b.do(&Offered{Caller: h.caller, Offer: o.id, Invocation: t.Invocation, Cores: t.Cores, FreeBytes: b.freeMemory() + o.bytes})
		// The turn is over: to the end with the invocation, and with the initiator.
		h.list = append(slices.DeleteFunc(h.list, func(x *ticket) bool { return x == t }), t)
		b.tickets.turns = append(slices.DeleteFunc(b.tickets.turns, func(x *holder) bool { return x == h }), h)
	}
}

// hold takes room for an offer, or gives it back.
func (b *Book) hold(o *offer, sign float64) {
	b.freeCores -= sign * o.cores
	b.freeBytes -= int64(sign) * o.bytes
	if o.ticket.Caller != b.options.Self {
		b.guestsInUse = max(0, b.guestsInUse+sign*o.cores)
	}
}

// turn finds whose turn it is: the first that fits, unless one before it was passed too often.
func (b *Book) turn() (*holder, *ticket) {
	if b.freeCores <= 0 {
		return nil, nil
	}
	var passed []*ticket
	for _, h := range b.tickets.turns {
		for _, t := range h.list {
			if b.held(t) || b.tooWide(t) {
				continue
			}
			if b.noRoom(Request{Caller: t.Caller, Cores: t.Cores, MemoryBytes: t.MemoryBytes}) == "" {
				for _, p := range passed {
					p.passed++
				}
				t.passed = 0
				return h, t
			}
			if t.passed >= maxBypass {
				return nil, nil
			}
			passed = append(passed, t)
		}
	}
	return nil, nil
}

// held reports whether a ticket has an offer already.
func (b *Book) held(t *ticket) bool {
	for _, o := range b.tickets.offers {
		if o.ticket == t {
			return true
		}
	}
	return false
}

// tooWide reports whether a ticket asks for more than guests may have now: no waiting helps it, so nobody waits for it.
func (b *Book) tooWide(t *ticket) bool {
	return t.Caller != b.options.Self && (t.Cores > b.guests+1e-9 || b.hopeless(t.MemoryBytes))
}

// starving reports whether somebody's ticket was passed so often that nobody else may take a slot. The machine's own
// initiator is never held up.
func (b *Book) starving(caller peer.ID) bool {
	if caller == b.options.Self {
		return false
	}
	for _, h := range b.tickets.turns {
		for _, x := range h.list {
			if x.passed >= maxBypass && x.Caller != caller && !b.tooWide(x) {
				return true
			}
		}
	}
	return false
}

// Take answers an offer with an action. An offer that ended meanwhile is an ordinary Reserve.
func (b *Book) Take(now time.Time, offer uint64, r Request) (ID, bool, *Refusal) {
	o := b.tickets.offers[offer]
	if o == nil || o.ticket.Caller != r.Caller {
		return b.Reserve(now, r)
	}
	delete(b.tickets.offers, offer)
	b.hold(o, -1)
	id, joined, refusal := b.Reserve(now, r)
	b.offer(now)
	return id, joined, refusal
}

// Pass answers an offer with nothing: the ticket is gone.
func (b *Book) Pass(now time.Time, caller peer.ID, offer uint64) {
	o := b.tickets.offers[offer]
	if o == nil || o.ticket.Caller != caller {
		return
	}
	b.lapse(o)
	b.offer(now)
}

// lapse ends an offer and its ticket.
func (b *Book) lapse(o *offer) {
	delete(b.tickets.offers, o.id)
	b.hold(o, -1)
	b.tear(o.ticket)
}

// tear removes a ticket.
func (b *Book) tear(t *ticket) {
	for _, h := range b.tickets.turns {
		if i := slices.Index(h.list, t); i >= 0 {
			h.list = slices.Delete(h.list, i, i+1)
			b.tickets.count--
		}
	}
	b.tickets.turns = slices.DeleteFunc(b.tickets.turns, func(h *holder) bool { return len(h.list) == 0 })
}

// Leave ends all tickets and offers of a caller: its call broke.
func (b *Book) Leave(now time.Time, caller peer.ID) {
	for _, o := range b.sortedOffers() {
		if o.ticket.Caller == caller {
			b.lapse(o)
		}
	}
	b.tickets.turns = slices.DeleteFunc(b.tickets.turns, func(h *holder) bool {
		if h.caller == caller {
			b.tickets.count -= len(h.list)
		}
		return h.caller == caller
	})
	b.offer(now)
}

func (b *Book) sortedOffers() []*offer {
	all := make([]*offer, 0, len(b.tickets.offers))
	for _, o := range b.tickets.offers {
		all = append(all, o)
	}
	slices.SortFunc(all, func(x, y *offer) int { return int(x.id) - int(y.id) })
	return all
}
