package lookup

import (
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

// question asks a peer about a key and has done called once, which must not block. The call is bounded by
// Budget; the answer may come when nobody waits for it any more.
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
		answers, err := l.call(id, batch)
		l.answered(id, err)
		for i, q := range batch {
			if err != nil {
				q.done(nil, err)
			} else {
				q.done(answers[i], nil)
			}
		}
	}
}

// answered notes whether a peer answers in time.
func (l *Lookup) answered(id peer.ID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.slow, id)
	} else {
		l.slow[id] = time.Now().Add(SlowFor)
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
func (l *Lookup) call(id peer.ID, batch []question) ([]*answer, error) {
	ctx, cancel := withBudget(l.ctx, l.budget(id))
	defer cancel()
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
