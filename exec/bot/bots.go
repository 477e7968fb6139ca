package bot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/platform"
)

var (
	// ErrLost is wrapped when a bot that had an action gave no result.
	ErrLost = errors.New("bot was lost")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("bots are closed")
	// ErrSuperseded ends a call of a bot that called again.
	ErrSuperseded = errors.New("the bot called again, or began another session")
	// ErrFull says that there are too many sessions.
	ErrFull = errors.New("too many bots")

	errSilent    = fmt.Errorf("%w: it was silent for too long", ErrLost)
	errLeft      = fmt.Errorf("%w: it left", ErrLost)
	errDropped   = fmt.Errorf("%w: it dropped the lease", ErrLost)
	errRestarted = fmt.Errorf("%w: it was started anew", ErrLost)
	errClosed    = fmt.Errorf("%w: this node takes no more of its calls", ErrLost)
)

// Options of Bots; zero values are the defaults given.
type Options struct {
	Grace       time.Duration // between two calls of a bot: 10 s
	Poll        time.Duration // how long a call waits for news at most: 30 s
	MaxSessions int           // 1000
}

// MaxCapacity is how many leases a bot may have, whatever it says.
const MaxCapacity = 1024

// Bots is the bots in touch with a node. Make it with New, end it with Close.
type Bots struct {
	options Options

	mu     sync.Mutex // guards everything below
	table  *table
	wake   chan struct{} // closed and replaced with every change
	timer  *time.Timer   // for the next session to expire
	turns  map[*session]uint64
	closed bool
}

// New makes Bots without any.
func New(o Options) *Bots {
	if o.Grace <= 0 {
		o.Grace = 10 * time.Second
	}
	if o.Poll <= 0 {
		o.Poll = 30 * time.Second
	}
	if o.MaxSessions <= 0 {
		o.MaxSessions = 1000
	}
	b := &Bots{options: o, table: newTable(o.Grace, rand.Text()), wake: make(chan struct{}), turns: map[*session]uint64{}}
	b.mu.Lock() // the timer's function may run before the field is set
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(time.Hour, b.expire)
	b.timer.Stop()
	return b
}

// Close gives all leases back and ends all calls.
func (b *Bots) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.timer.Stop()
	for _, s := range b.table.sessions {
		b.table.lose(s, errClosed)
	}
	for _, w := range b.table.waiting {
		w.end(Report{}, errClosed)
	}
	b.table.sessions, b.table.waiting = map[string]*session{}, nil
	b.changed()
}

// Stat is the bots at one moment.
type Stat struct{ Sessions, Capacity, Leases, Waiting int }

// Stat counts.
func (b *Bots) Stat() Stat {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stat{Sessions: len(b.table.sessions), Waiting: len(b.table.waiting)}
	for _, session := range b.table.sessions {
		s.Capacity, s.Leases = s.Capacity+session.bot.Capacity, s.Leases+len(session.leases)
	}
	return s
}

// Answer is what a bot's call is answered with.
type Answer struct {
	Session string
	Leases  []Lease
	Expires time.Time // by then the bot must have called again
}

// Open begins a session. Errors: ErrFull, ErrClosed.
func (b *Bots) Open(bot Bot) (Answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, err := b.open("bots/"+rand.Text(), bot)
	if err != nil {
		return Answer{}, err
	}
	return b.answer(s), nil
}

func (b *Bots) open(name string, bot Bot) (*session, error) {
	if b.closed {
		return nil, ErrClosed
	}
	if len(b.table.sessions) >= b.options.MaxSessions {
		return nil, ErrFull
	}
	s := b.table.open(time.Now(), name, bot)
	b.changed()
	return s, nil
}

func (b *Bots) answer(s *session) Answer {
	return Answer{Session: s.name, Leases: b.table.answer(s), Expires: time.Now().Add(b.options.Grace)}
}

// Update takes in what a bot says, and waits until there is something to tell it: not longer than
// Options.Poll, nor than ctx. A session that is not known, for instance because the node was started
// anew, begins with it. Errors: ErrSuperseded, ErrFull, ErrClosed, ctx's.
func (b *Bots) Update(ctx context.Context, name string, bot Bot, reports []Report) (Answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.table.sessions[name]
	if s == nil {
		var err error
		if s, err = b.open(name, bot); err != nil {
			return Answer{}, err
		}
	}
	b.table.report(time.Now(), s, bot, reports)
	s.calls++
	b.turns[s]++
	turn := b.turns[s]
	b.changed()
	defer func() {
		if s.calls--; s.calls == 0 {
			s.expires = time.Now().Add(b.options.Grace)
			delete(b.turns, s)
		}
		b.changed()
	}()
	poll := time.NewTimer(b.patience(ctx, bot))
	defer poll.Stop()
	for late := false; ; {
		switch {
		case b.closed:
			return Answer{}, ErrClosed
		case b.turns[s] != turn, b.table.sessions[name] != s:
			return Answer{}, ErrSuperseded
		case ctx.Err() != nil:
			return Answer{}, context.Cause(ctx)
		case s.news || late:
			return b.answer(s), nil
		}
		wake := b.wake
		b.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		case <-poll.C:
			late = true
		}
		b.mu.Lock()
	}
}

// patience is how long a call may wait: until a little before the bot's own deadline, and not at all
// when the bot says goodbye.
func (b *Bots) patience(ctx context.Context, bot Bot) time.Duration {
	wait := b.options.Poll
	if deadline, limited := ctx.Deadline(); limited {
		wait = min(wait, time.Until(deadline)-time.Second)
	}
	if bot.Status == Leaving {
		wait = 0
	}
	return max(0, wait)
}

// changed wakes who waits and sets the timer. Called with mu held, after every change.
func (b *Bots) changed() {
	close(b.wake)
	b.wake = make(chan struct{})
	if b.closed {
		return
	}
	if next := b.table.expire(time.Now()); !next.IsZero() {
		b.timer.Reset(time.Until(next))
	}
}

// expire runs on the timer.
func (b *Bots) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.changed()
	}
}

// Fits reports whether any bot may have an action, however busy it is.
func (b *Bots) Fits(a *action.Action) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.table.fits(a)
}

// attempt is an action that waits for a bot or is with one.
type attempt struct {
	bots  *Bots
	work  *work
	given chan struct{} // closed when a bot has it
	ended chan struct{} // closed when a bot had it; then report and err are set
	bot   string        // who; set before given is closed

	report Report
	err    error
}

// submit makes an action wait for a bot.
func (b *Bots) submit(a *action.Action, payload *anypb.Any, priority int32) *attempt {
	at := &attempt{bots: b, given: make(chan struct{}), ended: make(chan struct{})}
	at.work = &work{
		action: a, payload: payload, priority: priority,
		given: func(bot string) {
			at.bot = bot
			close(at.given)
		},
		end: func(r Report, err error) {
			at.report, at.err = r, err
			close(at.ended)
		},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		at.work.end(Report{}, errClosed)
		return at
	}
	b.table.submit(at.work)
	b.changed()
	return at
}

// withdraw ends the interest in the action; the bot that has it is told to stop.
func (at *attempt) withdraw() {
	b := at.bots
	b.mu.Lock()
	defer b.mu.Unlock()
	b.table.withdraw(at.work)
	b.changed()
}

// suits reports whether a bot in touch may have an action with these properties, whatever its root is.
func (b *Bots) suits(r platform.Request) bool {
	for _, whole := range []bool{true, false} {
		if b.Fits(&action.Action{Digest: digest.SHA256.Of(nil), Platform: r, WholeRoot: whole}) {
			return true
		}
	}
	return false
}
