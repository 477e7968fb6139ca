package place

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// world of random facts, and what must hold of every reservation in it.
type facts struct {
	*lab
	random *rand.Rand
	peers  map[peer.ID]Peer
	works  map[uint64]Work
	lost   map[uint64][]peer.ID // where a try of each work was lost
	runs   []*Reserve
}

var (
	families     = []string{"linux", "macos"}
	levels       = [][]string{{"x86-64"}, {"x86-64", "x86-64-v3"}, {"aarch64"}}
	fingerprints = []string{"f1", "f2"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func (f *facts) change(n byte) {
	f.peer(n, func(p *Peer) {
		p.Offer = platform.Offer{
			OSFamily: pick(f.random, families), ISA: pick(f.random, levels), Cores: float64(1 + f.random.IntN(8)),
			MemoryBytes: int64(1+f.random.IntN(8)) << 30, Fingerprint: pick(f.random, fingerprints),
		}
		p.State = pick(f.random, []State{Open, Open, Throttled, Draining, Closed})
		f.peers[p.ID] = *p
	})
}

func (f *facts) wish() {
	f.submit(func(w *Work) {
		w.Class = pick(f.random, []Class{Hermetic, Hermetic, Fingerprinted, Local})
		w.Platform = platform.Request{OSFamily: pick(f.random, append(families, "")), Cores: float64(f.random.IntN(5)), MemoryBytes: int64(f.random.IntN(6)) << 30}
		if f.random.IntN(2) == 0 {
			w.Platform.ISA = pick(f.random, levels)
		}
		f.works[w.ID] = *w
	})
}

// check fails the test when a reservation should not have been made.
func (f *facts) check(r *Reserve) {
	f.t.Helper()
	w, p, self := f.works[r.Work], f.peers[r.Peer], f.peers[id(0)]
	switch {
	case w.Platform.Match(p.Offer) != nil:
		f.t.Errorf("%+v does not match %+v: %v", p.Offer, w.Platform, w.Platform.Match(p.Offer))
	case p.ID != self.ID && w.Class == Local:
		f.t.Errorf("local work %d placed at %d", w.ID, p.ID[0])
	case p.ID != self.ID && w.Class == Fingerprinted && p.Offer.Fingerprint != self.Offer.Fingerprint:
		f.t.Errorf("work %d of %s placed at %s", w.ID, self.Offer.Fingerprint, p.Offer.Fingerprint)
	case p.ID != self.ID && p.State > Throttled:
		f.t.Errorf("work %d placed at a peer that is %s", w.ID, p.State)
	case p.ID != self.ID && slices.Contains(f.lost[w.ID], p.ID):
		f.t.Errorf("work %d placed at %d, where it was lost", w.ID, p.ID[0])
	case r.Cores > p.Offer.Cores:
		f.t.Errorf("%g cores reserved of %g", r.Cores, p.Offer.Cores)
	}
}

// No decision picks a peer that is excluded, closed or does not match, whatever happens in whatever order.
func TestNoWrongPeer(t *testing.T) {
	placed := 0
	for seed := range uint64(20) {
		f := &facts{
			lab: newLab(t, Options{Seed: seed}), random: rand.New(rand.NewPCG(seed, 7)),
			peers: map[peer.ID]Peer{}, works: map[uint64]Work{}, lost: map[uint64][]peer.ID{},
		}
		for n := range byte(12) {
			f.change(n)
		}
		for range 300 {
			f.now = f.now.Add(time.Duration(f.random.IntN(500)) * time.Millisecond)
			f.something()
			f.Tick(f.now)
			for _, d := range f.Decisions() {
				r, ok := d.(*Reserve)
				if a, answered := d.(*Answer); answered && a.Take != nil {
					r, ok = a.Take, true
				}
				if ok {
					f.check(r)
					f.runs = append(f.runs, r)
					placed++
				}
			}
		}
	}
	if placed < 500 {
		t.Errorf("only %d reservations were looked at", placed)
	}
}

// something happens. Decisions are taken after each fact, so that what they were made of is what check sees.
func (f *facts) something() {
	if what := f.random.IntN(10); what < 5 || len(f.runs) == 0 {
		f.wish()
		return
	} else if what == 5 {
		f.change(byte(f.random.IntN(12)))
		return
	} else if what == 6 {
		p := f.peers[id(byte(1+f.random.IntN(11)))]
		f.Offered(f.now, p.ID, Offer{ID: f.next, Invocation: "i", Cores: p.Offer.Cores, FreeBytes: p.Offer.MemoryBytes})
		return
	}
	i := f.random.IntN(len(f.runs))
	r := f.runs[i]
	f.runs = slices.Delete(f.runs, i, i+1)
	if !f.Current(r.Try) {
		return
	}
	if f.random.IntN(3) == 0 {
		f.lost[r.Work] = append(f.lost[r.Work], r.Peer)
		f.Failed(f.now, r.Try, Lost)
		return
	}
	f.Granted(f.now, r.Try)
	f.Finished(f.now, r.Try, Sample{Duration: time.Duration(f.random.IntN(3000)) * time.Millisecond, Cores: 1, MemoryBytes: 1 << 28})
}

// A peer that claims a thousand times what it has gets a few actions, and after slow results fewer than the honest ones.
func TestAbsurdClaims(t *testing.T) {
	for name, absurd := range map[string]float64{"huge": 1e18, "infinite": math.Inf(1), "no number": math.NaN()} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, Options{})
			l.peer(0)
			for range 10 {
				l.run(time.Second) // what one takes is known
			}
			l.peer(0, busy)
			for n := byte(1); n <= 10; n++ {
				l.peer(n)
			}
			l.peer(66, func(p *Peer) {
				p.Offer.Cores, p.FreeCores, p.Speed, p.Bandwidth = absurd, absurd, absurd, absurd
				p.Offer.MemoryBytes, p.FreeBytes = math.MaxInt64, math.MaxInt64
			})
			for range 40 {
				l.submit()
			}
			var there, honest []Try
			for _, d := range l.Decisions() {
				if r, ok := d.(*Reserve); ok && r.Peer == id(66) {
					there = append(there, r.Try)
				} else if ok {
					honest = append(honest, r.Try)
				}
			}
			if len(there) > unproven || len(honest) < 24 {
				t.Fatalf("of 40 actions %d went there, and %d to the honest", len(there), len(honest))
			}
			for i, r := range append(honest, there...) {
				took := time.Second
				if i >= len(honest) {
					took = 5 * time.Second
				}
				l.Finished(l.now.Add(took), r, Sample{Duration: took})
			}
			l.now = l.now.Add(5 * time.Second)
			l.Decisions()
			count := 0
			for range 40 {
				l.submit()
				for _, d := range l.Decisions() {
					if r, ok := d.(*Reserve); ok {
						if r.Peer == id(66) {
							count++
						}
						l.Finished(l.now, r.Try, Sample{Duration: time.Second})
					}
				}
			}
			if len(there) > 0 && count > 0 {
				t.Errorf("%d of 40 actions went to a peer five times slower than the free others", count)
			}
		})
	}
}

// A peer that claims that what it ran needed more memory and cores than any machine has makes nobody wait: later actions of the
// kind are placed, several at once, and reserve a multiple of what such actions need at most.
func TestAbsurdNeeds(t *testing.T) {
	const usual = 100 << 20
	for name, known := range map[string]int{"of a known kind": 6, "of an unknown kind": 0} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, Options{})
			l.peer(0)
			for range known {
				l.submit()
				l.Finished(l.now, l.reserve().Try, Sample{Duration: time.Second, Cores: 1, MemoryBytes: usual})
			}
			l.peer(0, busy)
			l.peer(66)
			for range 2 * enough {
				l.submit()
				r := l.reserve()
				l.Granted(l.now, r.Try)
				l.Finished(l.now, r.Try, Sample{Duration: time.Second, Cores: math.Inf(1), MemoryBytes: math.MaxInt64, InputBytes: math.MaxInt64, OutputBytes: math.MaxInt64})
			}
			l.Gone(l.now, id(66))
			l.peer(1)
			l.submit()
			first := l.reserve()
			if known == 0 { // nobody says otherwise: it gets a whole machine
				return
			}
			l.submit()
			second := l.reserve()
			for _, r := range []*Reserve{first, second} {
				if r.Peer != id(1) || r.MemoryBytes > 10*usual {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// A peer that accepts and never runs loses weight: with others free it is left alone.
func TestAcceptsAndNeverRuns(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1)
	l.peer(2)
	l.peer(66, func(p *Peer) { p.Speed = 8 })
	trusted := 0
	for range 100 {
		l.submit()
		r := l.reserve()
		if r.Peer == id(66) {
			trusted++
			l.Granted(l.now, r.Try)
			l.now = l.now.Add(20 * time.Second) // no beat came
			l.Failed(l.now, r.Try, Lost)
			r = l.reserve()
		}
		l.Granted(l.now, r.Try)
		l.now = l.now.Add(time.Second)
		l.Finished(l.now, r.Try, Sample{Duration: time.Second})
	}
	if trusted < 1 || trusted > 5 {
		t.Errorf("it got %d of 100 actions", trusted)
	}
}

// A peer that holds a ticket of ours is not asked for what it frees: it offers that.
func TestTicketHolderOffers(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1, free(1))
	l.submit()
	first := l.reserve()
	l.Granted(l.now, first.Try)
	second := l.submit()
	l.none() // a ticket
	l.Finished(l.now, first.Try, Sample{Duration: time.Second})
	l.none()
	l.Offered(l.now, id(1), Offer{ID: 5, Invocation: "i", Cores: 1, FreeBytes: 1 << 30})
	if a := l.Decisions()[0].(*Answer); a.Take == nil || a.Take.Work != second {
		t.Errorf("the offer was answered with %+v", a)
	}
	l.TicketLost(l.now, id(1))
}

// An offered slot goes to the most urgent work, whoever left the ticket; among equals to the invocation that did.
func TestOfferAndPriority(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1, busy)
	of := func(invocation string, priority int32) func(*Work) {
		return func(w *Work) { w.Invocation, w.Priority = invocation, priority }
	}
	var works []uint64
	for _, w := range []func(*Work){of("a", 0), of("b", 0), of("c", -1)} {
		works = append(works, l.submit(w))
	}
	l.none()
	for i, want := range []uint64{works[2], works[1], works[0]} {
		l.Offered(l.now, id(1), Offer{ID: uint64(i), Invocation: string("aba"[i]), Cores: 1, FreeBytes: 1 << 30})
		if a := l.Decisions()[0].(*Answer); a.Take == nil || a.Take.Work != want {
			t.Fatalf("offer %d was answered with %+v, want work %d", i, a.Take, want)
		}
	}
}
