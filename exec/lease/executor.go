package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// Blobs is the local store.
type Blobs interface {
	action.Blobs
	// Put stores a blob after checking it against its digest.
	Put(ctx context.Context, d digest.Digest, data []byte) error
}

// Content moves blobs between peers and keeps them.
type Content interface {
	// Fetch makes blobs present here, from a peer first and from whoever else has them. Blobs that nobody has are
	// listed, all of them, in an *action.MissingError.
	Fetch(ctx context.Context, from peer.ID, ds []digest.Digest) error
	// Inputs does the same for the input root of an action, and tells how many bytes came.
	Inputs(ctx context.Context, from peer.ID, a *action.Action) (int64, error)
	// Outputs does the same for what a result names, whole trees.
	Outputs(ctx context.Context, from peer.ID, fn digest.Function, r *repb.ActionResult) error
	// Pin keeps what a result names from eviction until release, which is never nil.
	Pin(ctx context.Context, fn digest.Function, r *repb.ActionResult) (release func(), err error)
}

// Receipts vouches for results, and checks what others vouch for.
type Receipts interface {
	// Sign gives a receipt for a result that was made here; empty when it is not to be shared.
	Sign(ctx context.Context, a *action.Action, r *repb.ActionResult) ([]byte, error)
	// Accept reports whether a result of a peer may be used here, and keeps its receipt.
	Accept(ctx context.Context, from peer.ID, a *action.Action, r *repb.ActionResult, receipt []byte) error
	// Note keeps the receipt of a peer's result that came too late to count and is only compared.
	Note(ctx context.Context, from peer.ID, a *action.Action, r *repb.ActionResult, receipt []byte) error
}

// ExecutorOptions is what an Executor works with. Log-like hooks may be nil.
type ExecutorOptions struct {
	Self     peer.ID
	Book     *Book // used by nobody else from now on
	Run      flight.Executor
	Blobs    Blobs
	Content  Content
	Receipts Receipts // nil: results are not vouched for

	Match   func(platform.Request) error               // whether this machine fulfils a request
	Caller  func(ctx context.Context) (peer.ID, error) // who calls, from the connection
	Status  func(error) error                          // gives an error its gRPC status
	Limits  action.Limits
	Changed func() // there is more or less room than before
}

// Executor serves a Book to peers and to this machine's own Initiator, and runs what it grants. Make it with NewExecutor,
// end it with Close.
type Executor struct {
	leasev1.UnimplementedLeaseServer
	options ExecutorOptions

	mu      sync.Mutex // guards all below
	book    *Book
	runs    map[ID]*guest
	waiters map[peer.ID]*waiter
	timer   *time.Timer
	closed  bool

	working sync.WaitGroup // goroutines of guests
}

// guest is an action that runs, or ran, for peers. One's own actions have no content.
type guest struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when result is set
	result *leasev1.Result

	mu       sync.Mutex // guards below
	release  func()     // pins of the outputs; nil: none
	unpinned bool
	stage    leasev1.Stage
	metadata []byte
	warned   chan struct{} // closed when the owner wants the machine back
	grace    time.Duration
}

// waiter is where offers for one caller go. push must not block.
type waiter struct {
	push func(*Offered)
}

// NewID makes a lease's name.
func NewID() (id ID) {
	rand.Read(id[:]) // never fails
	return id
}

// NewExecutor makes an Executor.
func NewExecutor(o ExecutorOptions) *Executor {
	if o.Changed == nil {
		o.Changed = func() {}
	}
	e := &Executor{options: o, book: o.Book, runs: map[ID]*guest{}, waiters: map[peer.ID]*waiter{}}
	e.mu.Lock() // the timer's function may run before the field is set
	defer e.mu.Unlock()
	e.timer = time.AfterFunc(time.Hour, func() { e.with(func(b *Book, now time.Time) { b.Tick(now) }) })
	return e
}

// with uses the book and carries out what follows from it. Everything that asks the book goes through here.
func (e *Executor) with(use func(b *Book, now time.Time)) {
	e.mu.Lock()
	coresBefore, bytesBefore := e.book.Free()
	use(e.book, time.Now())
	var release []func()
	for _, x := range e.book.Effects() {
		if r := e.carryOut(x); r != nil {
			release = append(release, r)
		}
	}
	if next := e.book.Next(); !next.IsZero() && !e.closed {
		e.timer.Reset(max(time.Until(next), time.Millisecond))
	}
	cores, bytes := e.book.Free()
	changed := cores != coresBefore || bytes != bytesBefore
	e.mu.Unlock()
	for _, r := range release {
		r()
	}
	if changed {
		e.options.Changed()
	}
}

// carryOut does one effect; what it returns is called without the lock. The caller holds e.mu.
func (e *Executor) carryOut(x Effect) func() {
	switch x := x.(type) {
	case *Kill:
		if g := e.runs[x.Lease]; g != nil {
			g.cancel(&EndedError{Reason: x.Reason})
		}
	case *Unpin:
		g := e.runs[x.Lease]
		delete(e.runs, x.Lease)
		if g != nil {
			return g.unpin
		}
	case *Offered:
		if w := e.waiters[x.Caller]; w != nil {
			w.push(x)
		}
	case *Warn:
		if l := e.book.leases[x.Lease]; l != nil {
			if g := e.runs[l.use.first]; g != nil {
				g.warn(x.Grace)
			}
		}
	}
	return nil
}

// EndedError says why an action was killed before it ended.
type EndedError struct{ Reason string }

func (e *EndedError) Error() string { return "the lease ended: " + e.Reason }

// Unwrap makes it a cancellation.
func (e *EndedError) Unwrap() error { return context.Canceled }

// unpin lets the outputs go, now or as soon as they are pinned.
func (g *guest) unpin() {
	g.mu.Lock()
	release := g.release
	g.release, g.unpinned = nil, true
	g.mu.Unlock()
	if release != nil {
		release()
	}
}

// pinned notes the release of the outputs' pins.
func (g *guest) pinned(release func()) {
	g.mu.Lock()
	late := g.unpinned
	if !late {
		g.release = release
	}
	g.mu.Unlock()
	if late {
		release()
	}
}

func (g *guest) warn(grace time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.grace == 0 {
		g.grace = max(grace, time.Millisecond)
		close(g.warned)
	}
}

// progress is what is known of the run.
func (g *guest) progress() (stage leasev1.Stage, metadata []byte, grace time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stage, g.metadata, g.grace
}

// Usage tells how the machine is used.
func (e *Executor) Usage() (u Usage) {
	e.with(func(b *Book, _ time.Time) { u = b.Usage() })
	return u
}

// Free is the room a guest may have now.
func (e *Executor) Free() (cores float64, bytes int64) {
	e.with(func(b *Book, _ time.Time) { cores, bytes = b.Free() })
	return cores, bytes
}

// Lend sets how many cores others may use at most, and why not all of them; 0 takes no guests.
func (e *Executor) Lend(cores float64, why string) {
	e.with(func(b *Book, now time.Time) { b.Lend(now, cores, why) })
}

// Memory notes how much of the machine's memory is available, in bytes, and how much of it its owner keeps from guests.
func (e *Executor) Memory(available, reserve int64) {
	e.with(func(b *Book, now time.Time) { b.Memory(now, available, reserve) })
}

// Evict warns every guest and ends it after a grace.
func (e *Executor) Evict(grace time.Duration) {
	e.with(func(b *Book, now time.Time) { b.Evict(now, grace) })
}

// Expel ends everything of a peer.
func (e *Executor) Expel(id peer.ID) { e.with(func(b *Book, now time.Time) { b.Expel(now, id) }) }

// Close kills everything and waits.
func (e *Executor) Close() {
	e.with(func(b *Book, now time.Time) {
		e.closed = true
		e.timer.Stop()
		b.Close(now)
	})
	e.working.Wait()
}

// runOwn runs an action of this machine's own initiator under its lease. When a peer began an equal one, its result is
// waited for; a peer that joins gets this one's.
func (e *Executor) runOwn(ctx context.Context, c Claim, a *action.Action, execute func(context.Context) (*flight.Outcome, error)) (outcome *flight.Outcome, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &guest{cancel: cancel, done: make(chan struct{}), warned: make(chan struct{}), stage: leasev1.Stage_STAGE_RUNNING}
	var id ID
	first := false
	e.with(func(b *Book, now time.Time) {
		if id, first, err = b.Start(now, c, a.Digest); err == nil && first {
			e.runs[id] = g
		} else {
			g = e.runs[id]
		}
	})
	if err != nil {
		return nil, err
	}
	if !first {
		return e.share(ctx, g)
	}
	outcome, err = execute(ctx)
	e.with(func(b *Book, now time.Time) { b.Finished(now, id) })
	shared := false
	e.with(func(b *Book, _ time.Time) { shared = b.shared(id) })
	g.result = &leasev1.Result{Failure: leasev1.Failure_FAILURE_EXECUTOR}
	if shared && err == nil && outcome != nil {
		g.result = &leasev1.Result{Message: outcome.Message}
		if failed := e.pack(context.WithoutCancel(ctx), g, a, outcome.Result, g.result); failed != nil {
			g.result = e.failure(failed)
		}
	}
	close(g.done)
	return outcome, err
}

// share waits for a run that a peer began.
func (e *Executor) share(ctx context.Context, g *guest) (*flight.Outcome, error) {
	if g == nil {
		return nil, lost(ErrStale)
	}
	select {
	case <-g.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return outcomeFrom(g.result)
}

// errClosed refuses what comes after Close.
var errClosed = errors.New("lease: executor is closed")

// begin starts the run of a lease, or finds the one under way.
func (e *Executor) begin(c Claim, start *leasev1.Start) (g *guest, err error) {
	d, err := digestFrom(start.Action)
	if err != nil {
		return nil, err
	}
	e.with(func(b *Book, now time.Time) {
		if e.closed {
			err = errClosed
			return
		}
		var id ID
		var first bool
		if id, first, err = b.Start(now, c, d); err != nil {
			return
		}
		if g = e.runs[id]; g != nil || !first {
			if g == nil {
				err = fmt.Errorf("run of lease %x: %w", c.Lease[:4], ErrStale)
			}
			return
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		g = &guest{cancel: cancel, done: make(chan struct{}), warned: make(chan struct{}), stage: leasev1.Stage_STAGE_FETCHING}
		e.runs[id] = g
		e.working.Go(func() {
			g.result = e.execute(ctx, g, d, c.Caller, start)
			cancel(nil)
			close(g.done)
			e.with(func(b *Book, now time.Time) { b.Finished(now, id) })
		})
	})
	return g, err
}
