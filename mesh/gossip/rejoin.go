package gossip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/roster"
)

const (
	// rejoinEvery is the mean time between two rounds; each is up to a fifth earlier or later.
	rejoinEvery = 10 * time.Second
	// rejoinTo is how many are tried in a round.
	rejoinTo = 3
	// maxJoins bounds the attempts under way; one that hangs takes memberlist's ten seconds.
	maxJoins = 12
	// recently is how many of the members gone last are preferred: those are likeliest to come back.
	recently = 16
)

// firstRounds are the pauses before the first rounds: a seed may be busy with others that start together.
var firstRounds = []time.Duration{0, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// rejoin finds members again. Only the goroutine of run uses it, but for the attempts themselves.
type rejoin struct {
	gossip  *Gossip
	timer   *time.Timer
	rounds  int // since the start or the last wake
	pending map[netip.AddrPort]bool
	done    chan netip.AddrPort
}

func newRejoin(g *Gossip) *rejoin {
	return &rejoin{gossip: g, pending: make(map[netip.AddrPort]bool), done: make(chan netip.AddrPort, maxJoins)}
}

// start begins with the first round at once.
func (r *rejoin) start() { r.timer = time.NewTimer(0) }

// round tries a few and sets the time of the next.
func (r *rejoin) round() {
	alone := r.gossip.alone()
	if r.rounds < len(firstRounds) && !alone {
		// One exchange of state tells more than seconds of gossip in a storm of joins.
		r.join(r.gossip.anybody())
	}
	for _, at := range pick(r.gossip.lost(), r.gossip.seeds(), alone) {
		r.join(at)
	}
	pause := rejoinEvery
	if r.rounds++; r.rounds < len(firstRounds) {
		pause = firstRounds[r.rounds]
	}
	r.timer.Reset(jitter(pause))
}

// all tries more than a round would, at once, and starts over with short pauses.
func (r *rejoin) all() {
	r.rounds = 0
	seeds := r.gossip.seeds()
	for _, m := range r.gossip.o.Roster.Now().Members {
		seeds = append(seeds, m.Gossip)
	}
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
	for _, at := range seeds[:min(len(seeds), 2*rejoinTo)] {
		r.join(at)
	}
	r.timer.Reset(jitter(firstRounds[2]))
}

// join tries one address, unless that is under way or too much is.
func (r *rejoin) join(at netip.AddrPort) {
	for len(r.done) > 0 {
		delete(r.pending, <-r.done)
	}
	g := r.gossip
	g.mu.Lock()
	list, self := g.list, g.at
	g.mu.Unlock()
	if list == nil || at == self || !at.IsValid() || r.pending[at] || len(r.pending) >= maxJoins {
		return
	}
	r.pending[at] = true
	g.joining.Go(func() {
		_, err := list.Join([]string{at.String()})
		g.note("join", err)
		r.done <- at // has room for all that are pending
	})
}

// alone reports that gossip knows nobody alive.
func (g *Gossip) alone() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.cards) == 0
}

// anybody is the address of a member that gossip calls alive; none: the zero address.
func (g *Gossip) anybody() netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, in := range g.cards { // in no order
		return in.member.Gossip
	}
	return netip.AddrPort{}
}

// lost lists the members gossip does not call alive, the ones gone last first.
func (g *Gossip) lost() []roster.Member {
	var out []roster.Member
	members := g.o.Roster.Now().Members
	g.mu.Lock()
	for _, m := range members {
		if g.cards[m.ID] == nil && m.State != roster.Left && m.Gossip.IsValid() {
			out = append(out, m)
		}
	}
	g.mu.Unlock()
	slices.SortStableFunc(out, func(a, b roster.Member) int { return b.Since.Compare(a.Since) })
	return out
}

// seeds lists the addresses to try beside members: those nobody alive is known at.
func (g *Gossip) seeds() []netip.AddrPort {
	if g.o.Seeds == nil {
		return nil
	}
	seeds := slices.Clone(g.o.Seeds())
	g.mu.Lock()
	defer g.mu.Unlock()
	known := make(map[netip.AddrPort]bool, len(g.cards))
	for _, in := range g.cards {
		known[in.member.Gossip] = true
	}
	return slices.DeleteFunc(seeds, func(at netip.AddrPort) bool { return known[at] || at == g.at })
}

// pick chooses whom a round tries: at most rejoinTo, or twice that for a node that is alone. Half of them
// are seeds, as far as there are any; of the lost, those gone last have the better chances.
func pick(lost []roster.Member, seeds []netip.AddrPort, alone bool) []netip.AddrPort {
	most := rejoinTo
	if alone {
		most *= 2
	}
	seeds = slices.Clone(seeds)
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
	out := seeds[:min(len(seeds), (most+1)/2)]
	late := slices.Clone(lost[:min(len(lost), recently)])
	for len(out) < most && len(lost) > 0 {
		from := late
		if len(from) == 0 || len(out) == most-1 { // the last place is for any of them
			from = lost
		}
		at := from[rand.IntN(len(from))].Gossip
		late = slices.DeleteFunc(late, func(m roster.Member) bool { return m.Gossip == at })
		lost = slices.DeleteFunc(slices.Clone(lost), func(m roster.Member) bool { return m.Gossip == at })
		if !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	return out
}

// jitter is d, a fifth more or less.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + time.Duration(rand.Int64N(int64(2*d/5)+1))
}
