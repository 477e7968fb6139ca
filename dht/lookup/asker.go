package lookup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// maxHolders is how many holders one peer may name for a result.
const maxHolders = 64

// answer is what a peer said about one key.
type answer struct {
	receipts [][]byte
	complete bool
	holders  []peer.ID
}

// asker gathers the questions to one peer: the first goes at once, those that come while it is under way
// go together when it returns.
//
//	question a    question b, c, d
//	call(a)
//	              waiting = b, c, d
//	a returns
//	call(b, c, d)
type asker struct {
	waiting []question
	calling bool
}

// question is one key somebody wants to know about.
type question struct {
	key  cid.Key
	done func(*answer, error)
}

// question asks a peer about a key and has done called once, which must not block, when the peer has answered or the
// time it has for that is over. It may be called when nobody waits for it any more.
func (l *Lookup) question(id peer.ID, key cid.Key, done func(*answer, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		done(nil, errClosed)
		return
	}
	a := l.askers[id]
	if a == nil {
		a = &asker{}
		l.askers[id] = a
	}
	a.waiting = append(a.waiting, question{key, done})
	if !a.calling {
		a.calling = true
		l.calls.Go(func() { l.serve(id, a) })
	}
}

// serve makes calls to one peer until no question waits.
func (l *Lookup) serve(id peer.ID, a *asker) {
	for {
		l.mu.Lock()
		batch := a.waiting[:min(len(a.waiting), MaxTogether)]
		a.waiting = slices.Clone(a.waiting[len(batch):])
		if len(batch) == 0 {
			a.calling = false
			delete(l.askers, id)
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.dispatch(id, a, batch)
	}
}

// outcome is what came of one call.
type outcome struct {
	answers []*answer
	err     error
}

// dispatch makes one call to a peer. Who asks waits for the peer's budget; the call goes on for SlowFor, since an answer that
// comes late tells that the peer is there.
func (l *Lookup) dispatch(id peer.ID, a *asker, batch []question) {
	ctx, cancel := context.WithTimeout(l.ctx, SlowFor)
	defer cancel()
	inTime, stop := withBudget(ctx, l.budget(id))
	defer stop()
	returned := make(chan outcome, 1)
	go func() { // ends with ctx
		answers, err := l.call(ctx, id, batch)
		returned <- outcome{answers, err}
	}()
	select {
	case o := <-returned:
		l.answered(id, o.err)
		for i, q := range batch {
			if o.err != nil {
				q.done(nil, o.err)
			} else {
				q.done(o.answers[i], nil)
			}
		}
	case <-inTime.Done():
		for _, q := range append(batch, l.late(id, a)...) {
			q.done(nil, context.Cause(inTime))
		}
		if o := <-returned; o.err == nil {
			l.cameLate(id)
		}
	}
}

// silence is what a peer owes: answers in time.
type silence struct {
	until time.Time // it is left out
	late  int       // answers since the last one in time
}

// answered notes how a call ended within the budget.
func (l *Lookup) answered(id peer.ID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.silent, id)
	} else {
		l.silent[id] = silence{until: time.Now().Add(SlowFor)}
	}
}

// late notes that an answer does not come in time, and gives the questions that wait for their turn meanwhile.
func (l *Lookup) late(id peer.ID, a *asker) []question {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[id] = silence{time.Now().Add(SlowFor), l.silent[id].late + 1}
	waiting := a.waiting
	a.waiting = nil
	return waiting
}

// cameLate notes that the answer came after all. Who stood still for a moment is asked again; who is late twice running is
// slow.
func (l *Lookup) cameLate(id peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.silent[id]; s.late == 1 {
		l.silent[id] = silence{late: 1}
	}
}

// budget is how long a peer may take to answer.
func (l *Lookup) budget(id peer.ID) time.Duration {
	if l.far(id) {
		return FarBudget
	}
	return Budget
}

// far reports whether a peer stands at another site.
func (l *Lookup) far(id peer.ID) bool {
	_, far := l.site(id)
	return far
}

// site tells at which other site a peer stands.
func (l *Lookup) site(id peer.ID) (name string, far bool) {
	if l.options.Far == nil {
		return "", false
	}
	return l.options.Far(id)
}

// call asks a peer about some keys.
func (l *Lookup) call(ctx context.Context, id peer.ID, batch []question) ([]*answer, error) {
	conn, err := l.options.Dialer.Control(ctx, id)
	if err != nil {
		return nil, err
	}
	q := &contentv1.ResultsRequest{Keys: make([][]byte, len(batch))}
	for i := range batch {
		q.Keys[i] = batch[i].key[:]
	}
	began := time.Now()
	r, err := contentv1.NewContentClient(conn).Results(ctx, q)
	if err != nil {
		return nil, err
	}
	if site, far := l.site(id); far && l.options.Distances != nil {
		l.options.Distances.Answered(site, time.Since(began))
	}
	if len(r.Answers) != len(batch) {
		return nil, fmt.Errorf("asked for %d results, got %d answers", len(batch), len(r.Answers))
	}
	answers := make([]*answer, len(batch))
	for i, a := range r.Answers {
		answers[i] = &answer{receipts: a.Receipts[:min(len(a.Receipts), maxCandidates)], complete: a.Complete}
		for _, raw := range a.Holders[:min(len(a.Holders), maxHolders)] {
			if len(raw) == len(peer.ID{}) && peer.ID(raw) != l.options.Self {
				answers[i].holders = append(answers[i].holders, peer.ID(raw))
			}
		}
	}
	return answers, nil
}
