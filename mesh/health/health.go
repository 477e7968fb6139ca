package health

import (
	"context"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
)

const (
	// lookTime bounds one attempt. It is less than roster waits for somebody to look.
	lookTime = 2 * time.Second
	// maxLooks bounds the attempts at once.
	maxLooks = 16
	// firstPause and longestPause bound the time between two attempts on a member that stays in doubt.
	firstPause   = 2 * time.Second
	longestPause = time.Minute
)

// Pinger asks a member for a sign of life over an authenticated stream. An error says, for people, why
// there is none. It is called by several goroutines.
type Pinger interface {
	Ping(ctx context.Context, m roster.Member) error
}

// Health looks after the members of one roster. Make it with New, end it with Close.
type Health struct {
	roster *roster.Roster
	pinger Pinger

	mu    sync.Mutex // guards looks
	looks map[peer.ID]*look

	poke    chan struct{} // looks changed
	running sync.WaitGroup
	looking sync.WaitGroup
	stop    context.CancelFunc
}

// look is what is known of the attempts on one member in doubt.
type look struct {
	boot  string
	due   time.Time
	pause time.Duration // before the next but one
	busy  bool
	asked bool // by Check: whether in doubt or not
}

// New begins to look after the members of r.
func New(r *roster.Roster, p Pinger) *Health {
	ctx, stop := context.WithCancel(context.Background())
	h := &Health{roster: r, pinger: p, looks: make(map[peer.ID]*look), poke: make(chan struct{}, 1), stop: stop}
	changes := make(chan uint64, 1)
	h.running.Go(func() { h.watch(ctx, changes) })
	h.running.Go(func() { h.run(ctx, changes) })
	return h
}

// Close ends it. Attempts under way are broken off.
func (h *Health) Close() {
	h.stop()
	h.running.Wait()
	h.looking.Wait()
}

// Check looks at a member now, in doubt or not, as when a stream to it broke.
func (h *Health) Check(id peer.ID) {
	h.mu.Lock()
	l := h.looks[id]
	if l == nil {
		l = &look{pause: firstPause}
		h.looks[id] = l
	}
	l.due, l.asked = time.Now(), true
	h.mu.Unlock()
	h.wake()
}

// wake lets run look at the looks again.
func (h *Health) wake() {
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

// watch tells run of changes of the roster.
func (h *Health) watch(ctx context.Context, changes chan<- uint64) {
	for version := uint64(0); ; {
		s, err := h.roster.Next(ctx, version)
		if err != nil {
			return
		}
		version = s.Version
		select {
		case changes <- version:
		case <-ctx.Done():
			return
		}
	}
}

// run starts attempts when they are due.
func (h *Health) run(ctx context.Context, changes <-chan uint64) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := h.begin(ctx, time.Now())
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-changes:
			h.enlist()
		case <-h.poke:
		case <-timer.C:
		}
	}
}

// enlist brings looks in line with who is in doubt.
func (h *Health) enlist() {
	doubtful := make(map[peer.ID]bool)
	for _, id := range h.roster.Doubtful() {
		doubtful[id] = true
	}
	snapshot := h.roster.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, l := range h.looks {
		if !doubtful[id] && !l.busy && !l.asked {
			delete(h.looks, id)
		}
	}
	for id := range doubtful {
		m, _ := snapshot.Get(id)
		if l := h.looks[id]; l == nil || l.boot != m.Boot && !l.asked && !l.busy {
			h.looks[id] = &look{boot: m.Boot, due: time.Now(), pause: firstPause}
		}
	}
}

// begin starts the attempts that are due and says how long to wait for the next.
func (h *Health) begin(ctx context.Context, now time.Time) time.Duration {
	snapshot := h.roster.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	wait := longestPause
	busy := 0
	for _, l := range h.looks {
		if l.busy {
			busy++
		}
	}
	for id, l := range h.looks {
		m, known := snapshot.Get(id)
		switch {
		case !known && !l.busy:
			delete(h.looks, id)
		case l.busy:
		case l.due.After(now):
			wait = min(wait, l.due.Sub(now))
		case busy < maxLooks:
			busy++
			l.busy, l.asked, l.boot = true, false, m.Boot
			h.looking.Go(func() { h.look(ctx, m, l) })
		}
	}
	return wait
}

// look makes one attempt.
func (h *Health) look(ctx context.Context, m roster.Member, l *look) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	err := h.pinger.Ping(ctx, m)
	over := ctx.Err() == context.Canceled
	cancel()
	h.mu.Lock()
	l.busy = false
	l.due = time.Now().Add(l.pause)
	l.pause = min(2*l.pause, longestPause)
	if err == nil && !l.asked {
		delete(h.looks, m.ID)
	}
	h.mu.Unlock()
	switch {
	case over: // Close, not the member
	case err == nil:
		h.roster.Seen(m.ID)
	default:
		h.roster.Failed(m.ID, err.Error())
	}
	h.wake()
}
