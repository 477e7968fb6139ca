package lease

import (
	"bytes"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// sorted gives the leases in a fixed order.
func (b *Book) sorted() []*held {
	all := make([]*held, 0, len(b.leases))
	for _, l := range b.leases {
		all = append(all, l)
	}
	slices.SortFunc(all, func(x, y *held) int { return bytes.Compare(x.Lease[:], y.Lease[:]) })
	return all
}

// ends is when a lease ends unless it is renewed; the zero time when it does not.
func (l *held) ends() time.Time {
	if l.due.IsZero() {
		return l.evict
	}
	end := l.due
	if l.started {
		end = end.Add(Grace)
	}
	if again := l.broken.Add(TTL); l.use.phase != finished && !l.broken.IsZero() && again.Before(end) {
		end = again
	}
	if l.use.phase == finished && end.After(l.use.ended.Add(HoldMax)) {
		end = l.use.ended.Add(HoldMax)
	}
	if !l.evict.IsZero() && l.evict.Before(end) {
		end = l.evict
	}
	return end
}

// Tick ends what is overdue: leases without a beat, offers without an answer.
func (b *Book) Tick(now time.Time) {
	for _, l := range b.sorted() {
		if end := l.ends(); !end.IsZero() && !end.After(now) {
			reason := "its initiator is gone"
			if !l.evict.IsZero() && !l.evict.After(now) {
				reason = "evicted by the owner of this machine"
			}
			b.end(now, l, reason)
		}
	}
	for _, o := range b.sortedOffers() {
		if !o.until.After(now) {
			b.lapse(o)
		}
	}
	b.offer(now)
}

// Next is when Tick is wanted; the zero time when it is not.
func (b *Book) Next() time.Time {
	var first time.Time
	note := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, l := range b.leases {
		note(l.ends())
	}
	for _, o := range b.tickets.offers {
		note(o.until)
	}
	return first
}

// Lend sets how many cores others may use at most, and why not all of them, in a person's words; 0 takes no guests. Those that
// run go on: see Evict.
func (b *Book) Lend(now time.Time, cores float64, why string) {
	b.guests, b.unwelcome = min(max(cores, 0), b.cores), why
	b.offer(now)
}

// Evict warns every guest and ends it after a grace, because the owner of the machine is back.
func (b *Book) Evict(now time.Time, grace time.Duration) {
	for _, l := range b.sorted() {
		if l.Caller != b.options.Self && l.use.phase != finished && l.evict.IsZero() {
			l.evict = now.Add(grace)
			b.do(&Warn{Lease: l.Lease, Grace: grace})
		}
	}
}

// Expel ends everything of a peer: it was revoked.
func (b *Book) Expel(now time.Time, caller peer.ID) {
	b.Leave(now, caller)
	for _, l := range b.sorted() {
		if l.Caller == caller {
			b.end(now, l, "its initiator was expelled")
		}
	}
}

// Close ends everything.
func (b *Book) Close(now time.Time) {
	b.guests = 0
	for _, o := range b.sortedOffers() {
		b.hold(o, -1)
	}
	b.tickets = newTickets()
	for _, l := range b.sorted() {
		b.end(now, l, "this node ends")
	}
}
