package merge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// What keeps the result of another peer's run from coming.
var (
	errGone    = errors.New("it left")
	errNothing = errors.New("it brought no result")
	errSlow    = errors.New("it takes longer than such actions do")
)

// running is an action of this node's, from when it is about to run. It is a flight.Merge.
type running struct {
	merger   *Merger
	key      Key
	action   *action.Action
	patience time.Duration // that is left for others

	// Guarded by Merger.mu.
	over    chan struct{} // closed when it does not run here any more; nil: it does not run
	began   time.Time
	earlier func()  // nil: whoever began before is not waited for
	by      peer.ID // who began before
	despite peer.ID // who brought nothing
}

// Begin implements flight.Merger.
func (m *Merger) Begin(ctx context.Context, a *action.Action, r flight.Request) flight.Merge {
	expected := m.options.Expect(r.Meta.Mnemonic)
	if expected.Samples > 0 && expected.Median < Worth {
		return nil
	}
	k, shared := m.options.Results.Key(ctx, a)
	if !shared {
		return nil
	}
	return &running{merger: m, key: k, action: a, patience: patience(expected)}
}

// patience is how long others may take for an action.
func patience(expected place.Estimate) time.Duration {
	if expected.Samples == 0 {
		return unknownPatience
	}
	return min(max(patienceTimes*expected.P95, leastPatience), mostPatience)
}

// Running implements flight.Merge. Of equal actions in flight on this node, which have different instances, one is told of.
func (w *running) Running(earlier func()) {
	m := w.merger
	m.mu.Lock()
	if m.live[w.key] != nil {
		m.mu.Unlock()
		return
	}
	m.live[w.key] = w
	w.over, w.began = make(chan struct{}), time.Now()
	if w.patience > 0 {
		w.earlier = earlier
	}
	m.mu.Unlock()
	m.tell(notice{key: w.key, kind: leasev1.Notice_KIND_BEGUN, despite: w.despite, run: w})
}

// answered hears who began before.
func (w *running) answered(by peer.ID) {
	m := w.merger
	m.mu.Lock()
	earlier := w.earlier
	if by.IsZero() || by == m.options.Self || by == w.despite || w.over == nil || time.Since(w.began) > Young {
		earlier = nil
	}
	if earlier != nil {
		w.by, w.earlier = by, nil
	}
	m.mu.Unlock()
	if earlier != nil {
		earlier()
	}
}

// halt notes that it does not run here any more, and reports whether the board was told that it does.
func (w *running) halt() (told bool) {
	m := w.merger
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.over == nil {
		return false
	}
	close(w.over)
	w.over, w.earlier = nil, nil
	delete(m.live, w.key)
	return true
}

// Await implements flight.Merge.
func (w *running) Await(ctx context.Context) (*repb.ActionResult, string, error) {
	w.halt()
	m, began := w.merger, time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.mu.Lock()
	by := w.by
	m.waiting[w] = cancel
	m.mu.Unlock()
	name := m.options.Name(by) // now: one that is turned out has none
	r, err := m.result(ctx, w, by)
	m.mu.Lock()
	delete(m.waiting, w)
	w.patience -= time.Since(began)
	w.despite = by
	m.mu.Unlock()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return nil, "", fmt.Errorf("waited %s for %s's: %w", time.Since(began).Round(100*time.Millisecond), name, err)
	}
	return r, name, nil
}

// result waits for a peer's run and brings here what it made.
func (m *Merger) result(ctx context.Context, w *running, by peer.ID) (*repb.ActionResult, error) {
	asking, cancel := context.WithTimeoutCause(ctx, w.patience, errSlow)
	defer cancel()
	receipts, err := m.await(asking, w.key, by)
	if err != nil {
		return nil, cmp.Or(context.Cause(asking), err)
	}
	if len(receipts) == 0 {
		return nil, errNothing
	}
	adopting, cancel := context.WithTimeout(ctx, adoptFor)
	defer cancel()
	return m.options.Results.Adopt(adopting, w.action, by, receipts)
}

// await asks a peer until its run is over.
func (m *Merger) await(ctx context.Context, k Key, by peer.ID) ([][]byte, error) {
	for {
		again := time.NewTimer(PollFor)
		answer, err := m.ask(ctx, k, by)
		if err != nil || !answer.Running {
			again.Stop()
			return answer.GetReceipts(), err
		}
		select { // a peer that answers too soon is not asked more often
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// ask asks a peer once.
func (m *Merger) ask(ctx context.Context, k Key, by peer.ID) (*leasev1.AwaitResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, PollFor+Slack)
	defer cancel()
	conn, err := m.options.Network.Control(ctx, by)
	if err != nil {
		return nil, err
	}
	return leasev1.NewMergeClient(conn).Await(ctx, &leasev1.AwaitRequest{Key: k[:]})
}

// End implements flight.Merge.
func (w *running) End(made bool) {
	if !w.halt() {
		return
	}
	kind := leasev1.Notice_KIND_ENDED
	if made {
		kind = leasev1.Notice_KIND_MADE
	}
	w.merger.tell(notice{key: w.key, kind: kind})
}
