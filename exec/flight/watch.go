package flight

import (
	"context"
	"fmt"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
)

// Flight is one execution. Everything but mu's fields is fixed at its start.
type Flight struct {
	name         string
	action       *action.Action
	request      Request
	created      time.Time
	abandonAfter time.Duration
	cancel       context.CancelCauseFunc
	abandon      *time.Timer // runs checkAbandoned; stopped when the flight is done

	mu          sync.Mutex // guards all below
	state       State
	changed     chan struct{} // closed and replaced with every change of state
	watchers    int           // calls of Wait in progress
	lastWatched time.Time
	cancelled   bool // somebody ended it; its result may still be on the way
	endedAt     time.Time
}

// Name is the flight's name in the Operations protocol; it begins with NamePrefix.
func (f *Flight) Name() string { return f.name }

// Action is the digest of the action.
func (f *Flight) Action() digest.Digest { return f.request.Action }

// Words is the begin of the action's command.
func (f *Flight) Words() string { return f.action.Words() }

// Request is what the first client of the flight asked.
func (f *Flight) Request() Request { return f.request }

// Created is when the flight began.
func (f *Flight) Created() time.Time { return f.created }

// State is the flight now. It does not count as watching.
func (f *Flight) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Wait gives the first state it can with a Version above after; 0 gives the present one at once. When
// ctx ends first it gives the present state and ctx's error. A flight that is done has no further
// versions: its state is given at once, whatever after says.
func (f *Flight) Wait(ctx context.Context, after uint64) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers++
	defer func() {
		f.watchers--
		f.lastWatched = time.Now()
	}()
	for f.state.Version <= after && !f.state.Done() {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if ctx.Err() != nil && f.state.Version <= after {
			return f.state, fmt.Errorf("wait for %s: %w", f.name, context.Cause(ctx))
		}
	}
	return f.state, nil
}

// Cancel ends the flight for everyone who watches it. It returns at once; the flight is done when
// nothing of the action runs any more. Cancelling a finished flight changes nothing.
func (f *Flight) Cancel() { f.end(ErrCancelled) }

// end cancels the run for a reason, of which the first counts.
func (f *Flight) end(reason error) {
	f.mu.Lock()
	f.cancelled = true
	f.mu.Unlock()
	f.cancel(reason)
}

// touch counts as a moment of watching. It reports false when the flight is being cancelled, so that
// nobody may join it.
func (f *Flight) touch() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastWatched = time.Now()
	return !f.cancelled
}

// checkAbandoned runs on the timer. One timer serves the flight's whole life: instead of being moved
// with every change of the watchers, it looks when the last one left and comes back for the rest.
func (f *Flight) checkAbandoned() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Done() {
		return
	}
	rest := f.abandonAfter
	if f.watchers == 0 {
		rest = f.abandonAfter - time.Since(f.lastWatched)
	}
	if rest <= 0 {
		f.cancelled = true
		f.cancel(ErrAbandoned)
		return
	}
	f.abandon.Reset(rest)
}

// update changes the state and wakes all who wait. A finished flight does not change any more: what an
// executor's observer says late is lost.
func (f *Flight) update(change func(*State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Done() {
		return
	}
	change(&f.state)
	f.state.Version++
	close(f.changed)
	f.changed = make(chan struct{})
}

// enter moves to a stage.
func (f *Flight) enter(stage repb.ExecutionStage_Value) {
	f.update(func(s *State) { s.Stage = stage })
}

// complete ends the flight with its response.
func (f *Flight) complete(response *repb.ExecuteResponse) {
	f.update(func(s *State) {
		s.Stage = repb.ExecutionStage_COMPLETED
		s.Response = response
		if m := response.GetResult().GetExecutionMetadata(); m != nil {
			s.Metadata = m
		}
		f.endedAt = time.Now()
	})
	f.abandon.Stop()
	f.cancel(nil) // frees the context
}

// ended is when the flight completed; the zero time before.
func (f *Flight) ended() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.endedAt
}

func (f *Flight) key() mergeKey {
	return mergeKey{f.request.Action, f.request.Instance, f.request.SkipCacheLookup}
}
