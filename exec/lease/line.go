package lease

import (
	"context"
	"time"

	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// line is the call over which tickets go to a peer, and its offers come back.
type line struct {
	out  chan *leasev1.WaitRequest
	stop context.CancelFunc

	takes map[uint64]*attempt // answered and not confirmed; guarded by Initiator.mu
}

// leave sends a ticket, over a new line when there is none. The caller holds i.mu.
func (i *Initiator) leave(t *place.Ticket) {
	if t.Peer == i.options.Self {
		k := Ticket{Caller: t.Peer, Invocation: t.Invocation, Cores: t.Cores, MemoryBytes: t.MemoryBytes}
		i.later(func() { i.options.Executor.with(func(b *Book, now time.Time) { b.Ticket(now, k) }) })
		return
	}
	i.send(t.Peer, &leasev1.WaitRequest{Message: &leasev1.WaitRequest_Ticket{Ticket: &leasev1.Ticket{
		Invocation: t.Invocation, Cores: t.Cores, MemoryBytes: t.MemoryBytes,
	}}})
}

// later does something that needs the Executor's lock. The caller holds i.mu.
func (i *Initiator) later(f func()) {
	if !i.closed {
		i.working.Go(f)
	}
}

// send puts a message on a peer's line. One that is full belongs to a peer that does not read: its tickets are void. The
// caller holds i.mu.
func (i *Initiator) send(id peer.ID, m *leasev1.WaitRequest) {
	if i.closed {
		return
	}
	l := i.lines[id]
	if l == nil {
		ctx, stop := context.WithCancel(i.ctx)
		l = &line{out: make(chan *leasev1.WaitRequest, 2*maxTickets), stop: stop, takes: map[uint64]*attempt{}}
		i.lines[id] = l
		i.working.Go(func() {
			i.talk(ctx, id, l)
			stop()
			i.hangUp(id, l)
		})
	}
	select {
	case l.out <- m:
	default:
		l.stop()
	}
}

// talk carries messages until the call ends.
func (i *Initiator) talk(ctx context.Context, id peer.ID, l *line) {
	client, err := (&remote{initiator: i, peer: id}).client(ctx)
	if err != nil {
		return
	}
	stream, err := client.Wait(ctx)
	if err != nil {
		return
	}
	i.working.Go(func() { // ends with the call
		defer l.stop()
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			switch m := m.Message.(type) {
			case *leasev1.WaitResponse_Offer:
				i.offered(id, place.Offer{
					ID: m.Offer.GetOffer(), Invocation: m.Offer.GetInvocation(), Cores: m.Offer.GetCores(), FreeBytes: m.Offer.GetFreeMemoryBytes(),
				})
			case *leasev1.WaitResponse_Taken:
				i.taken(l, m.Taken)
			}
		}
	})
	for {
		select {
		case m := <-l.out:
			if stream.Send(m) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// hangUp voids the tickets and the unconfirmed answers of a line that ended.
func (i *Initiator) hangUp(id peer.ID, l *line) {
	i.step(func(c *place.Core, now time.Time) {
		if i.lines[id] == l {
			delete(i.lines, id)
		}
		for _, t := range l.takes {
			c.Refused(now, t.Try, place.Refusal{Reason: "the connection broke"})
		}
		clear(l.takes)
		c.TicketLost(now, id)
	})
}

// offered gives an offer to the core.
func (i *Initiator) offered(id peer.ID, o place.Offer) {
	i.step(func(c *place.Core, now time.Time) { c.Offered(now, id, o) })
}

// ownOffer is offered for this machine's own slots. The Executor holds its lock.
func (i *Initiator) ownOffer(o *Offered) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.later(func() {
		i.offered(i.options.Self, place.Offer{ID: o.Offer, Invocation: o.Invocation, Cores: o.Cores, FreeBytes: o.FreeBytes})
	})
}

// answer takes or passes an offer. The caller holds i.mu.
func (i *Initiator) answer(d *place.Answer) {
	var t *attempt
	if d.Take != nil {
		t = i.attempt(d.Take)
	}
	self := d.Peer == i.options.Self
	switch {
	case t == nil && self:
		i.later(func() { i.options.Executor.pass(d.Peer, d.Offer) })
	case t == nil:
		i.send(d.Peer, &leasev1.WaitRequest{Message: &leasev1.WaitRequest_Pass{Pass: &leasev1.Pass{Offer: d.Offer}}})
	case self:
		i.later(func() {
			id, _, refusal := i.options.Executor.take(d.Offer, i.request(t))
			i.settle(t, id, refusal)
		})
	default:
		i.send(d.Peer, &leasev1.WaitRequest{Message: &leasev1.WaitRequest_Take{Take: &leasev1.Take{Offer: d.Offer, Reserve: requestProto(i.request(t))}}})
		if l := i.lines[d.Peer]; l != nil {
			l.takes[d.Offer] = t
		}
	}
}

// taken is the executor's word on an answer.
func (i *Initiator) taken(l *line, m *leasev1.Taken) {
	i.mu.Lock()
	t := l.takes[m.GetOffer()]
	delete(l.takes, m.GetOffer())
	i.mu.Unlock()
	if t == nil {
		return
	}
	id, refusal, err := answerFrom(m.GetAnswer())
	if err != nil {
		refusal = &Refusal{Reason: err.Error()}
	}
	i.settle(t, id, refusal)
}

// settle starts an attempt whose offer was confirmed, or tells the core that it was not. When the work was given up
// meanwhile the lease is of no use.
func (i *Initiator) settle(t *attempt, id ID, r *Refusal) {
	if r != nil {
		i.refused(t, r)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	t.start(i, &id)
	if !i.core.Current(t.Try) {
		t.cancel(errUnwanted)
	}
}
