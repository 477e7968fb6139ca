package lease

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Network gives connections to peers.
type Network interface {
	// Control is for small calls that must not wait behind a transfer.
	Control(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error)
}

// InitiatorOptions is what an Initiator works with.
type InitiatorOptions struct {
	Self     peer.ID
	Epoch    uint64          // must differ from that of every earlier Initiator of this peer
	Executor *Executor       // this machine's
	Run      flight.Executor // runs this machine's own actions
	Spare    flight.Executor // runs what nobody waits for; nil: Run
	Network  Network         // nil: alone
	Blobs    Blobs
	Content  Content
	Receipts Receipts // nil: results of peers are taken as they are
	Auditor  Auditor  // nil: nothing is compared

	Class      func(ctx context.Context, a *action.Action) place.Class
	Name       func(peer.ID) string // what people call a peer; nil: its short id
	Place      place.Options
	History    *place.History
	MaxTimeout time.Duration // of any action; default 24 h
}

// Initiator has actions placed and runs them under leases, here and at peers. It is a flight.Placer. Make it with
// NewInitiator, end it with Close.
type Initiator struct {
	options InitiatorOptions
	ctx     context.Context // of everything that is under way; ended by Close
	stop    context.CancelCauseFunc
	working sync.WaitGroup

	suspects chan suspect // wait to be made again

	selfMu sync.Mutex // held from reading the own room to telling it, so that the last told is the last read; before mu
	self   place.Peer // guarded by selfMu; what does not change of it

	mu       sync.Mutex // guards all below
	core     *place.Core
	works    map[uint64]*work
	attempts map[place.Try]*attempt
	lines    map[peer.ID]*line
	sequence uint64
	auditing *work // makes a result again; nil: none does
	timer    *time.Timer
	closed   bool
}

// work is an action that is being placed.
type work struct {
	id      uint64
	action  *action.Action
	request flight.Request
	began   time.Time
	audit   Made // what the result is compared with; By is zero for ordinary work

	here     sync.WaitGroup  // attempts on this machine
	granted  chan struct{}   // closed with the first lease
	watched  chan struct{}   // closed when observer is set: nothing runs before
	observer flight.Observer // what runs is told to it
	done     chan struct{}   // closed when outcome and err are set

	// Guarded by Initiator.mu until done.
	outcome *flight.Outcome
	err     error
	limit   int64 // of memory, in the try that ran out of it and whose outcome is kept
	ended   bool
	given   error // why it was given up; nil: it was not
	placed  bool  // granted is closed
	trace   place.Trace
}

// audits reports whether the work makes a result again.
func (w *work) audits() bool { return !w.audit.By.IsZero() }

// attempt is one try under way.
type attempt struct {
	*place.Reserve
	work   *work
	cancel context.CancelCauseFunc
	at     int // in work.trace.Attempts
}

// errUnwanted cancels an attempt whose work is done or given up.
var errUnwanted = errors.New("no longer wanted")

// NewInitiator makes an Initiator. self is this machine as the core is to see it; its room is read from the Executor.
func NewInitiator(o InitiatorOptions, self place.Peer) *Initiator {
	if o.MaxTimeout <= 0 {
		o.MaxTimeout = 24 * time.Hour
	}
	if o.Name == nil {
		o.Name = peer.ID.Short
	}
	if o.Spare == nil {
		o.Spare = o.Run
	}
	if o.Place.Seed == 0 {
		o.Place.Seed = binary.LittleEndian.Uint64(o.Self[:])
	}
	i := &Initiator{
		options: o, self: self, suspects: make(chan suspect, maxSuspects), core: place.New(o.Place, o.History), works: map[uint64]*work{},
		attempts: map[place.Try]*attempt{}, lines: map[peer.ID]*line{},
	}
	i.ctx, i.stop = context.WithCancelCause(context.Background())
	i.self.ID, i.self.Self = o.Self, true
	i.mu.Lock() // the timer's function may run before the field is set
	i.timer = time.AfterFunc(time.Hour, func() { i.step(func(c *place.Core, now time.Time) { c.Tick(now) }) })
	i.mu.Unlock()
	o.Executor.enter(o.Self, &waiter{push: i.ownOffer})
	i.Refresh()
	i.working.Go(i.audit)
	return i
}

// Refresh tells the core how much room this machine has. It is to be called whenever the Executor's room changed.
func (i *Initiator) Refresh() {
	i.selfMu.Lock()
	defer i.selfMu.Unlock()
	u := i.options.Executor.Usage()
	p := i.self
	p.FreeCores, p.FreeBytes = max(u.FreeCores, 0), max(u.FreeBytes, 0)
	i.step(func(c *place.Core, now time.Time) {
		p.At = now
		c.Peer(now, p)
	})
}

// Peer notes what is believed of a peer now.
func (i *Initiator) Peer(p place.Peer) {
	if p.ID != i.options.Self {
		p.Self = false
		i.step(func(c *place.Core, now time.Time) { c.Peer(now, p) })
	}
}

// Gone notes that a peer left: what ran there is lost.
func (i *Initiator) Gone(id peer.ID) {
	i.step(func(c *place.Core, now time.Time) { c.Gone(now, id) })
	i.mu.Lock()
	defer i.mu.Unlock()
	if l := i.lines[id]; l != nil {
		l.stop()
	}
}

// Estimate is what an action of a mnemonic is expected to need; the zero one when that is not known.
func (i *Initiator) Estimate(mnemonic string) place.Estimate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.core.Estimate(mnemonic)
}

// Waiting is how many actions have no place yet.
func (i *Initiator) Waiting() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.core.Waiting()
}

// Place implements flight.Placer: it waits for the first lease. Should that come to nothing, further ones follow while the
// executor it gives executes.
func (i *Initiator) Place(ctx context.Context, a *action.Action, r flight.Request) (flight.Executor, func(), error) {
	w := i.submit(ctx, a, r, Made{})
	if w == nil {
		return nil, nil, errClosed
	}
	select {
	case <-w.granted:
	case <-w.done:
		if w.err != nil {
			return nil, nil, w.err
		}
	case <-ctx.Done():
		i.withdraw(w, context.Cause(ctx))
		return nil, nil, context.Cause(ctx)
	}
	return &found{i, w}, func() { i.withdraw(w, errUnwanted) }, nil
}

// found is a place for one action. It is a flight.Executor.
type found struct {
	initiator *Initiator
	work      *work
}

// Execute implements flight.Executor.
func (f *found) Execute(ctx context.Context, _ *action.Action, o flight.Observer) (*flight.Outcome, error) {
	w := f.work
	w.watch(o)
	select {
	case <-w.done:
	case <-ctx.Done():
		f.initiator.withdraw(w, context.Cause(ctx))
	}
	w.here.Wait() // nothing of the action may run here when the flight is over
	f.initiator.mu.Lock()
	defer f.initiator.mu.Unlock()
	trace := w.trace
	trace.Attempts = slices.Clone(trace.Attempts)
	outcome := &flight.Outcome{}
	if w.outcome != nil {
		*outcome = *w.outcome
	}
	outcome.Placement = &trace
	return outcome, w.err
}

// watch lets the work run, under the eyes of o.
func (w *work) watch(o flight.Observer) {
	w.observer = o
	close(w.watched)
}

// withdraw gives a work up, unless it is done.
func (i *Initiator) withdraw(w *work, why error) {
	i.step(func(c *place.Core, now time.Time) {
		w.given = why
		c.Withdraw(now, w.id)
	})
	i.finish(w, nil, why)
	w.here.Wait()
}

// submit gives an action to the core; nil after Close.
func (i *Initiator) submit(ctx context.Context, a *action.Action, r flight.Request, audit Made) *work {
	class := place.Local
	if audit.By.IsZero() {
		class = i.options.Class(ctx, a)
	}
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.sequence++
	w := &work{
		id: i.sequence, action: a, request: r, began: time.Now(), audit: audit,
		granted: make(chan struct{}), watched: make(chan struct{}), done: make(chan struct{}),
	}
	i.works[w.id] = w
	if w.audits() {
		i.auditing = w
	}
	i.mu.Unlock()
	w.trace.Class = class
	i.step(func(c *place.Core, now time.Time) {
		c.Submit(now, place.Work{
			ID: w.id, Action: a.Digest, Root: a.InputRoot, Platform: a.Platform, Class: class, Invocation: r.Meta.Invocation,
			Mnemonic: r.Meta.Mnemonic, Priority: r.Priority, DoNotCache: a.DoNotCache,
		})
	})
	return w
}

// step tells the core something and carries out what it decides. Nothing under way here blocks: what takes time gets a
// goroutine, in the order of the decisions.
func (i *Initiator) step(tell func(c *place.Core, now time.Time)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	tell(i.core, now)
	for again := true; again; again = i.yield(now) {
		for _, d := range i.core.Decisions() {
			i.carryOut(d)
		}
	}
	if next := i.core.Next(); !next.IsZero() && !i.closed {
		i.timer.Reset(max(time.Until(next), time.Millisecond))
	}
}

// carryOut begins what a decision asks for. The caller holds i.mu.
func (i *Initiator) carryOut(d place.Decision) {
	switch d := d.(type) {
	case *place.Reserve:
		if t := i.attempt(d); t != nil {
			t.start(i, nil)
		}
	case *place.Ticket:
		i.leave(d)
	case *place.Answer:
		i.answer(d)
	case *place.Cancel:
		if t := i.attempts[d.Try]; t != nil {
			t.cancel(cmp.Or(t.work.given, errUnwanted))
		}
	case *place.Fail:
		if w := i.works[d.Work]; w != nil {
			err := d.Err
			if memory := (*place.MemoryError)(nil); errors.As(err, &memory) && w.err != nil {
				err = w.err // the machine that ran it says it better
			}
			i.end(w, w.outcome, err)
		}
	}
}

// attempt notes a try; nil when its work is over already. The caller holds i.mu.
func (i *Initiator) attempt(r *place.Reserve) *attempt {
	w := i.works[r.Work]
	if w == nil || i.closed {
		return nil
	}
	if len(w.trace.Attempts) == 0 {
		w.trace.Waited = time.Since(w.began)
	}
	self := r.Peer == i.options.Self
	w.trace.Attempts = append(w.trace.Attempts, place.Attempt{
		Attempt: r.Attempt, Peer: r.Peer, Self: self, Hedge: r.Hedge, Cores: r.Cores, MemoryBytes: r.MemoryBytes, Scores: r.Scores,
	})
	return &attempt{Reserve: r, work: w, at: len(w.trace.Attempts) - 1}
}

// start gives the attempt its goroutine. A lease that it has already saves the reservation. The caller holds i.mu.
func (t *attempt) start(i *Initiator, lease *ID) {
	ctx, cancel := context.WithCancelCause(i.ctx)
	t.cancel = cancel
	i.attempts[t.Try] = t
	self := t.Peer == i.options.Self
	if self {
		t.work.here.Add(1)
	}
	i.working.Go(func() {
		i.run(ctx, t, lease)
		cancel(nil)
		i.mu.Lock()
		if i.attempts[t.Try] == t {
			delete(i.attempts, t.Try)
		}
		i.mu.Unlock()
		if self {
			t.work.here.Done()
		}
	})
}

// note adds an event to an attempt's trace.
func (i *Initiator) note(t *attempt, format string, args ...any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	events := &t.work.trace.Attempts[t.at].Events
	*events = append(*events, place.Event{After: time.Since(t.work.began), What: fmt.Sprintf(format, args...)})
}

// finish ends a work with its outcome, the first time.
func (i *Initiator) finish(w *work, o *flight.Outcome, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.end(w, o, err)
}

// end is finish for a caller that holds i.mu.
func (i *Initiator) end(w *work, o *flight.Outcome, err error) {
	if w.ended {
		return
	}
	w.ended, w.outcome, w.err = true, o, err
	delete(i.works, w.id)
	if i.auditing == w {
		i.auditing = nil
	}
	close(w.done)
}

// Close gives everything up and waits.
func (i *Initiator) Close() {
	i.mu.Lock()
	i.closed = true
	i.timer.Stop()
	for _, w := range i.works {
		i.end(w, nil, errClosed)
	}
	i.stop(errClosed)
	i.mu.Unlock()
	i.working.Wait()
}
