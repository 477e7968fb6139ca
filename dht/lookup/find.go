package lookup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ErrNotFound means that no member has a result that is believed and complete.
var ErrNotFound = errors.New("no member has the result")

// Found is a hit.
type Found struct {
	Result  *repb.ActionResult // shared: callers clone it before they change anything
	Receipt *receipt.Receipt
	Root    actioncache.Root
}

// Find gives the result that q asks for. Errors: ErrNotFound, the context's, or what the local stores failed with.
func (l *Lookup) Find(ctx context.Context, q Query) (*Found, error) {
	keys := make([]cid.Key, len(q.Roots))
	for i, root := range q.Roots {
		keys[i] = l.options.Keyer.Result(q.Action, root)
	}
	known, err := l.options.Receipts.Raw(keys)
	if err != nil {
		return nil, err
	}
	candidates, err := l.candidates(ctx, keys, known)
	if err != nil {
		return nil, err
	}
	var w *weighing
	for i, root := range q.Roots {
		if len(known[i]) == 0 && len(candidates[i]) == 0 {
			continue
		}
		if w == nil {
			w = &weighing{lookup: l, expect: q.Expect}
		}
		s := sought{actioncache.Key{Action: q.Action, Root: root}, known[i], w.worth(candidates[i]), w}
		if len(s.known) == 0 && len(s.candidates) == 0 {
			continue // nobody who is worth asking has it
		}
		found, err := l.flight(ctx, keys[i], func() (*Found, error) { return l.find(ctx, s) })
		if err == nil && l.trusted(found.Receipt.Statement) != nil {
			continue // revoked while this was on its way
		}
		if !errors.Is(err, ErrNotFound) {
			return found, err
		}
	}
	if w != nil && w.spared {
		l.stat.spared.Add(1)
	}
	return nil, &missError{q.Action}
}

// sought is one result that is looked for.
type sought struct {
	key        actioncache.Key
	known      [][]byte  // receipts that are here
	candidates []peer.ID // to ask
	weighing   *weighing // who was left out of them
}

// missError is a lookup that found nothing. Most find nothing, so it is put into words only when somebody reads it.
type missError struct{ action digest.Digest }

func (e *missError) Error() string {
	return "result of action " + e.action.Short() + ": " + ErrNotFound.Error()
}

// Unwrap makes every miss an ErrNotFound.
func (e *missError) Unwrap() error { return ErrNotFound }

// candidates gives the peers to ask for each key: none where a miss is remembered, where what is known is
// taken off too.
func (l *Lookup) candidates(ctx context.Context, keys []cid.Key, known [][][]byte) ([][]peer.ID, error) {
	all := make([][]peer.ID, len(keys))
	open, places := make([]cid.Key, 0, len(keys)), make([]int, 0, len(keys))
	l.mu.Lock()
	for i, k := range keys {
		if until, is := l.negative[k]; is && time.Now().Before(until) {
			l.stat.negative.Add(1)
			known[i] = nil
			continue
		}
		open, places = append(open, k), append(places, i)
	}
	l.mu.Unlock()
	if len(open) == 0 || l.options.Policy.Agree == 0 {
		return all, nil
	}
	found, err := l.options.Locator.Find(ctx, open)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return all, nil // nobody can be asked: what is known here may do
	}
	some := false
	for i, ids := range found {
		all[places[i]] = ids[:min(len(ids), maxCandidates)]
		some = some || len(ids) > 0 || len(known[places[i]]) > 0
	}
	if !some {
		l.stat.silent.Add(1)
	}
	return all, nil
}

// flight is a lookup under way.
type flight struct {
	done  chan struct{}
	found *Found
	err   error
}

// flight has equal lookups be one. Who waits for another's that was cancelled looks itself.
func (l *Lookup) flight(ctx context.Context, key cid.Key, find func() (*Found, error)) (*Found, error) {
	for {
		l.mu.Lock()
		f := l.flights[key]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			l.flights[key] = f
			l.mu.Unlock()
			f.found, f.err = find()
			l.mu.Lock()
			delete(l.flights, key)
			l.mu.Unlock()
			close(f.done)
			return f.found, f.err
		}
		l.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if f.err == nil || errors.Is(f.err, ErrNotFound) {
			return f.found, f.err
		}
	}
}

// find asks, believes and completes.
func (l *Lookup) find(ctx context.Context, s sought) (*Found, error) {
	key, place := s.key, l.options.Keyer.Result(s.key.Action, s.key.Root)
	receipts, _ := l.checkAll(key, s.known)
	known := heard{chosen: l.choose(place, receipts)}
	if known.chosen == nil && len(s.candidates) > 0 {
		l.stat.asked.Add(1)
		var err error
		if known, err = l.ask(ctx, key, receipts, s.candidates); err != nil {
			return nil, err
		}
	}
	chosen := known.chosen
	if chosen == nil {
		if !known.silent {
			l.remember(place, s.weighing)
		}
		return nil, &missError{key.Action}
	}
	holders := append(known.holders, slices.DeleteFunc(slices.Clone(s.candidates), l.far)...) // a bridge need not have what its site has
	result, err := l.complete(ctx, key, chosen, s.weighing.worth(append(holders, chosen.Executor)))
	if errors.Is(err, receipt.ErrUntrusted) {
		l.stat.refused.Add(1)
		return nil, fmt.Errorf("%w: %w", &missError{key.Action}, err)
	}
	if errors.Is(err, errIncomplete) {
		l.stat.incomplete.Add(1)
		l.remember(place, s.weighing)
		if errors.Is(err, tree.ErrInvalid) {
			l.forged(chosen.Executor)
		}
		return nil, fmt.Errorf("%w: %w", &missError{key.Action}, err)
	}
	if err != nil {
		return nil, err
	}
	l.stat.hits.Add(1)
	if err := l.announce(ctx, place); err != nil && ctx.Err() != nil {
		return nil, err
	} // that nobody could be told is no fault of the hit
	return &Found{Result: result, Receipt: chosen, Root: key.Root}, nil
}

// remember notes a miss, unless somebody was left out who may have the result: the next one to ask may expect more.
func (l *Lookup) remember(key cid.Key, w *weighing) {
	if w.spared {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if len(l.negative) >= maxNegative {
		for k, until := range l.negative {
			if now.After(until) {
				delete(l.negative, k)
			}
		}
		if len(l.negative) >= maxNegative {
			clear(l.negative)
		}
	}
	l.negative[key] = now.Add(NegativeFor)
}

// checkAll keeps the receipts that are believed and counts those that are not; forged says that one of these is none at all,
// or of something else.
func (l *Lookup) checkAll(key actioncache.Key, raw [][]byte) (all []*receipt.Receipt, forged bool) {
	for _, b := range raw {
		r, err := l.check(b, key)
		if err != nil {
			l.stat.refused.Add(1)
			forged = forged || errors.Is(err, receipt.ErrInvalid)
			continue
		}
		all = append(all, r)
	}
	return all, forged
}

// forged notes a peer that showed a receipt which no honest one shows.
func (l *Lookup) forged(id peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.forgers) < maxForgers {
		l.forgers[id] = struct{}{}
	}
}

// Forgers are those that showed receipts which no honest peer shows, since the start: malformed ones, those of another
// action or mesh, and those of trees beyond every limit. They are 4096 at most, the first ones.
func (l *Lookup) Forgers() []peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.forgers))
}

// choose weighs receipts by the policy; those of a quarantined action count only when they are one's own.
func (l *Lookup) choose(place cid.Key, receipts []*receipt.Receipt) *receipt.Receipt {
	if l.options.Receipts.Quarantined(place) {
		return receipt.Policy{}.Choose(l.options.Self, receipts)
	}
	return l.options.Policy.Choose(l.options.Self, receipts)
}
