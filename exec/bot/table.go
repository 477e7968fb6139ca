package bot

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/buildmesh/buildmesh/exec/action"
)

// State is how far a lease is. Numbers are those of the protocol.
type State int32

// The states of a lease.
const (
	Pending   State = 1 // the bot does not know of it yet
	Active    State = 2 // the bot is at work
	Completed State = 4
	Cancelled State = 5 // the bot is to stop
)

// Status is what a bot says of its own health.
type Status int

// The kinds of status. What a bot says at first means that it is ready.
const (
	Ready   Status = iota
	Paused         // takes no new leases
	Leaving        // gives its leases back
)

// Bot is what a bot says of itself.
type Bot struct {
	ID         string // chosen by the bot's owner
	Properties []Property
	Status     Status
	Capacity   int // leases at a time, at least 1
	Priority   int // bots with a lower one are asked first
}

// Report is what a bot says of a lease.
type Report struct {
	ID      string
	State   State
	Result  *anypb.Any // of a completed one: an ActionResult
	Code    int32      // gRPC code of a completed one
	Message string
}

// Lease is what a bot is told.
type Lease struct {
	ID      string
	State   State
	Payload *anypb.Any // an Action
}

// work is an action for a bot. end is called once, when it was with a bot and no longer is; given when it
// gets to one.
type work struct {
	action   *action.Action
	payload  *anypb.Any
	priority int32
	given    func(bot string)
	end      func(Report, error)

	sequence uint64
	lease    *lease // nil: it waits
}

// lease is a work with a session.
type lease struct {
	id    string
	state State
	work  *work // nil once cancelled
}

// session is a bot in touch.
type session struct {
	name    string
	bot     Bot
	offer   offer
	leases  []*lease
	calls   int       // of the bot that wait for an answer
	expires time.Time // when it counts as lost, while calls is 0
	news    bool      // the bot was not told everything yet
	unknown []string  // leases it speaks of that are not its own
}

// table is all sessions and all work. It belongs to one caller at a time, who brings the time.
type table struct {
	grace    time.Duration
	epoch    string // begins the names of leases, so that those of an earlier process are known as foreign
	sessions map[string]*session
	waiting  []*work // the most urgent first, equal ones in the order they came
	sequence uint64
}

func newTable(grace time.Duration, epoch string) *table {
	return &table{grace: grace, epoch: epoch, sessions: map[string]*session{}}
}

// open begins a session. One that the same bot had before is over: the bot was started anew.
func (t *table) open(now time.Time, name string, b Bot) *session {
	for old, s := range t.sessions {
		if s.bot.ID == b.ID {
			delete(t.sessions, old)
			t.lose(s, errRestarted)
		}
	}
	s := &session{name: name, bot: b, offer: newOffer(b.Properties), expires: now.Add(t.grace)}
	t.sessions[name] = s
	t.assign()
	return s
}

// report takes in what a bot says, and gives work to whoever has room now.
func (t *table) report(now time.Time, s *session, b Bot, reports []Report) {
	changed := !slices.Equal(s.bot.Properties, b.Properties)
	s.bot, s.expires = b, now.Add(t.grace)
	if changed {
		s.offer = newOffer(b.Properties)
	}
	told := make(map[string]Report, len(reports))
	s.unknown = s.unknown[:0]
	for _, r := range reports {
		told[r.ID] = r
		if slices.ContainsFunc(s.leases, func(l *lease) bool { return l.id == r.ID }) {
			continue
		}
		s.news = true // it may forget the lease, or has to stop
		if r.State != Completed {
			s.unknown = append(s.unknown, r.ID)
		}
	}
	s.leases = slices.DeleteFunc(s.leases, func(l *lease) bool { return t.settle(s, l, told) })
	for _, l := range s.leases {
		// What it was told may have been lost with the call that would have told it.
		s.news = s.news || l.state != Active
	}
	if b.Status == Leaving {
		t.lose(s, errLeft)
	}
	t.assign()
}

// settle compares a lease with what the bot says of it, and reports whether it is over.
func (t *table) settle(s *session, l *lease, told map[string]Report) bool {
	r, mentioned := told[l.id]
	switch {
	case mentioned && r.State == Completed:
		s.news = true // it may forget the lease
		if l.work != nil {
			l.work.end(r, nil)
		}
		return true
	case l.state == Cancelled:
		return !mentioned || r.State == Cancelled
	case mentioned && r.State == Active:
		s.news = s.news || l.state == Pending // it begins when it hears that we know
		l.state = Active
	case !mentioned && l.state == Active: // it had the lease, and dropped it
		l.work.end(Report{}, errDropped)
		return true
	}
	return false
}

// lose gives the work of a session back.
func (t *table) lose(s *session, reason error) {
	for _, l := range s.leases {
		if l.work != nil {
			l.work.end(Report{}, reason)
		}
	}
	s.leases = nil
}

// submit makes work wait for a bot; at once it may get to one.
func (t *table) submit(w *work) {
	t.sequence++
	w.sequence = t.sequence
	at, _ := slices.BinarySearchFunc(t.waiting, w, func(a, b *work) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.sequence, b.sequence))
	})
	t.waiting = slices.Insert(t.waiting, at, w)
	t.assign()
}

// withdraw ends the interest in work. A bot that has it is told to stop.
func (t *table) withdraw(w *work) {
	t.waiting = slices.DeleteFunc(t.waiting, func(other *work) bool { return other == w })
	if w.lease == nil {
		return
	}
	for _, s := range t.sessions {
		for _, l := range s.leases {
			if l == w.lease && l.work != nil {
				l.state, l.work, s.news = Cancelled, nil, true
			}
		}
	}
}

// assign gives waiting work to sessions with room.
func (t *table) assign() {
	t.waiting = slices.DeleteFunc(t.waiting, func(w *work) bool {
		s := t.best(w.action)
		if s == nil {
			return false
		}
		w.lease = &lease{id: t.epoch + "-" + strconv.FormatUint(w.sequence, 10), state: Pending, work: w}
		s.leases, s.news = append(s.leases, w.lease), true
		w.given(s.bot.ID)
		return true
	})
}

// best is the session that is to have an action: of those that may and have room, the first by priority,
// then by how little of its capacity is in use; nil for none.
func (t *table) best(a *action.Action) *session {
	var best *session
	for _, s := range t.sessions {
		if s.bot.Status != Ready || len(s.leases) >= s.bot.Capacity || !s.offer.takes(a) {
			continue
		}
		if best == nil || s.before(best) {
			best = s
		}
	}
	return best
}

func (s *session) before(o *session) bool {
	return cmp.Or(
		cmp.Compare(s.bot.Priority, o.bot.Priority),
		cmp.Compare(len(s.leases)*o.bot.Capacity, len(o.leases)*s.bot.Capacity),
		cmp.Compare(s.name, o.name),
	) < 0
}

// fits reports whether any session, however busy, may have an action.
func (t *table) fits(a *action.Action) bool {
	for _, s := range t.sessions {
		if s.bot.Status != Leaving && s.offer.takes(a) {
			return true
		}
	}
	return false
}

// answer is what a bot is to be told now.
func (t *table) answer(s *session) []Lease {
	s.news = false
	var leases []Lease
	for _, l := range s.leases {
		out := Lease{ID: l.id, State: l.state}
		if l.work != nil {
			out.Payload = l.work.payload
		}
		leases = append(leases, out)
	}
	for _, id := range s.unknown {
		leases = append(leases, Lease{ID: id, State: Cancelled})
	}
	return leases
}

// expire ends the sessions that have been silent for too long, and gives the time of the next end; zero
// when there is none.
func (t *table) expire(now time.Time) (next time.Time) {
	for name, s := range t.sessions {
		switch {
		case s.calls > 0:
		case !now.Before(s.expires):
			delete(t.sessions, name)
			t.lose(s, errSilent)
		case next.IsZero() || s.expires.Before(next):
			next = s.expires
		}
	}
	t.assign()
	return next
}
