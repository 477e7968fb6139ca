package lookup

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// maxNamed is how many members of its site a bridge may name for one result.
const maxNamed = 4

// candidate is a peer to ask.
type candidate struct {
	id peer.ID
	by peer.ID // the bridge that named it; zero: the locator did
}

// reply is what one candidate said.
type reply struct {
	candidate
	answer *answer
	err    error
}

// asking is one result being asked for.
type asking struct {
	lookup  *Lookup
	key     actioncache.Key
	queue   []candidate
	next    int // of queue
	waiting int // for so many replies
	replies chan reply
	hedge   *time.Timer

	receipts []*receipt.Receipt
	heard
}

// heard is what asking came to.
type heard struct {
	chosen  *receipt.Receipt // nil: none
	holders []peer.ID        // that said to have everything, or are said to
	silent  bool             // somebody who may have the result did not answer
}

// ask asks candidates, those of this site first and one more each HedgeAfter, until the receipts, with those
// known before, suffice or the budget is spent.
func (l *Lookup) ask(ctx context.Context, key actioncache.Key, receipts []*receipt.Receipt, candidates []peer.ID) (heard, error) {
	budget := Budget
	if slices.ContainsFunc(candidates, l.far) {
		budget = FarBudget
	}
	ctx, cancel := withBudget(ctx, budget)
	defer cancel()
	a := &asking{lookup: l, key: key, receipts: receipts, hedge: time.NewTimer(HedgeAfter)}
	defer a.hedge.Stop()
	for _, id := range l.nearFirst(l.answering(candidates)) {
		a.queue = append(a.queue, candidate{id: id})
	}
	a.silent = len(a.queue) < len(candidates)
	a.replies = make(chan reply, len(a.queue)*(1+maxNamed))
	for range max(1, l.options.Policy.Agree) { // a quorum is asked at once
		a.more()
	}
	for a.waiting > 0 {
		var r reply
		select {
		case r = <-a.replies:
		case <-a.hedge.C:
			a.more()
			continue
		case <-ctx.Done():
			select {
			case r = <-a.replies: // what has come counts
			default:
				a.silent = true
				return a.heard, nil
			}
		}
		if err := a.take(r); a.chosen != nil || err != nil {
			return a.heard, err
		}
		a.more()
	}
	return a.heard, nil
}

// more asks the next candidate, if there is one.
func (a *asking) more() {
	if a.next == len(a.queue) {
		return
	}
	c := a.queue[a.next]
	a.next, a.waiting = a.next+1, a.waiting+1
	l := a.lookup
	if l.far(c.id) {
		a.hedge.Reset(FarHedgeAfter)
	} else {
		a.hedge.Reset(HedgeAfter)
	}
	l.question(c.id, l.options.Keyer.Result(a.key.Action, a.key.Root), func(got *answer, err error) { a.replies <- reply{c, got, err} })
}

// take checks and stores the receipts of a reply, and chooses one when they suffice.
func (a *asking) take(r reply) error {
	a.waiting--
	if r.err != nil {
		a.silent = true
		return nil
	}
	l := a.lookup
	place := l.options.Keyer.Result(a.key.Action, a.key.Root)
	some, forged := l.checkAll(a.key, r.answer.receipts)
	if forged {
		l.forged(r.id)
	}
	a.report(r, len(some) > 0)
	for _, one := range some {
		err := l.keep(place, one)
		if errors.Is(err, receipt.ErrUntrusted) { // revoked since it was checked
			l.stat.refused.Add(1)
			continue
		}
		if err != nil {
			return err
		}
		a.receipts = append(a.receipts, one)
	}
	if r.answer.complete && len(some) > 0 {
		a.holders = append([]peer.ID{r.id}, a.holders...)
	}
	a.holders = append(a.holders, r.answer.holders...)
	a.chosen = l.choose(place, a.receipts)
	return nil
}

// report tells what became of a claim. A bridge claims that somebody at its site has the result: it names whom to ask
// next, and answers for what they say.
func (a *asking) report(r reply, confirmed bool) {
	by := r.id
	if r.by != (peer.ID{}) {
		by = r.by
	} else if !confirmed && a.lookup.far(r.id) && a.named(r) {
		return
	}
	if a.lookup.options.Report == nil {
		return
	}
	n := 0
	if confirmed {
		n = 1
	}
	a.lookup.options.Report(by, 1, n)
}

// named has those asked next that a bridge names, and reports whether there are any.
func (a *asking) named(r reply) bool {
	var more []candidate
	for _, id := range r.answer.holders {
		if len(more) < maxNamed && !slices.ContainsFunc(a.queue, func(c candidate) bool { return c.id == id }) {
			more = append(more, candidate{id: id, by: r.id})
		}
	}
	a.queue = slices.Insert(a.queue, a.next, more...)
	return len(more) > 0 || slices.ContainsFunc(r.answer.holders, func(id peer.ID) bool { return id != r.id })
}

// nearFirst puts peers at this node's site first.
func (l *Lookup) nearFirst(ids []peer.ID) []peer.ID {
	var near, far []peer.ID
	for _, id := range ids {
		if l.far(id) {
			far = append(far, id)
		} else {
			near = append(near, id)
		}
	}
	return append(near, far...)
}

// answering leaves out who did not answer just now.
func (l *Lookup) answering(ids []peer.ID) []peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.silent) == 0 {
		return ids
	}
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(ids), func(id peer.ID) bool { return now.Before(l.silent[id].until) })
}
