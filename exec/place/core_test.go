package place

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func id(n byte) peer.ID { return peer.ID{n} }

// lab is a core with a clock of its own.
type lab struct {
	*Core
	t    testing.TB
	now  time.Time
	next uint64
}

func newLab(t testing.TB, o Options) *lab { return &lab{Core: New(o, nil), t: t, now: start} }

var offer = platform.Offer{OSFamily: "linux", ISA: []string{"x86-64"}, Cores: 4, MemoryBytes: 8 << 30, Fingerprint: "f1"}

// peer makes a free peer known; bend changes it first. The peer 0 is this machine.
func (l *lab) peer(n byte, bend ...func(*Peer)) {
	p := Peer{ID: id(n), Name: fmt.Sprintf("p%d", n), Self: n == 0, Offer: offer, FreeCores: -1, FreeBytes: -1, Speed: 1, At: l.now}
	for _, b := range bend {
		b(&p)
	}
	if p.FreeCores < 0 {
		p.FreeCores = p.Offer.Cores
	}
	if p.FreeBytes < 0 {
		p.FreeBytes = p.Offer.MemoryBytes
	}
	l.Core.Peer(l.now, p)
}

func busy(p *Peer)               { p.FreeCores = 0 }
func free(c float64) func(*Peer) { return func(p *Peer) { p.FreeCores = c } }

// submit adds a work and gives its number.
func (l *lab) submit(bend ...func(*Work)) uint64 {
	l.next++
	w := Work{ID: l.next, Action: digest.SHA256.Of([]byte{byte(l.next), byte(l.next >> 8)}), Mnemonic: "CppCompile", Invocation: "i"}
	for _, b := range bend {
		b(&w)
	}
	l.Submit(l.now, w)
	return w.ID
}

// reserve takes the decisions, which must be one Reserve.
func (l *lab) reserve() *Reserve {
	l.t.Helper()
	var found *Reserve
	for _, d := range l.Decisions() {
		switch d := d.(type) {
		case *Reserve:
			if found != nil {
				l.t.Fatalf("two reservations: %+v and %+v", found, d)
			}
			found = d
		case *Ticket:
		default:
			l.t.Fatalf("unexpected %T %+v", d, d)
		}
	}
	if found == nil {
		l.t.Fatal("no reservation")
	}
	return found
}

// none takes the decisions, which must hold no Reserve.
func (l *lab) none() (all []Decision) {
	l.t.Helper()
	for _, d := range l.Decisions() {
		if r, ok := d.(*Reserve); ok {
			l.t.Fatalf("unexpected reservation %+v", r)
		}
		all = append(all, d)
	}
	return all
}

// run submits a work and lets it finish after d, wherever it is placed.
func (l *lab) run(d time.Duration) {
	l.submit()
	r := l.reserve()
	l.Granted(l.now, r.Try)
	l.now = l.now.Add(d)
	l.Finished(l.now, r.Try, Sample{Duration: d})
}

// TestLifeOfWork follows one work from the queue to a peer that is lost, and to its result elsewhere.
func TestLifeOfWork(t *testing.T) {
	l := newLab(t, Options{Explain: true})
	l.peer(0, busy)
	l.peer(1, busy)
	l.peer(2, busy)
	w := l.submit()
	tickets := map[peer.ID]bool{}
	for _, d := range l.none() {
		tickets[d.(*Ticket).Peer] = true
	}
	if l.Waiting() != 1 || !tickets[id(0)] || len(tickets) != 2 {
		t.Fatalf("%d waiting, tickets at %v", l.Waiting(), tickets)
	}
	var at peer.ID
	for at = range tickets {
		if at != id(0) {
			break
		}
	}
	l.Offered(l.now, at, Offer{ID: 7, Invocation: "i", Cores: 1, FreeBytes: 1 << 30})
	answer := l.Decisions()[0].(*Answer)
	if answer.Offer != 7 || answer.Take == nil || answer.Take.Try != (Try{w, 1}) || answer.Take.Peer != at {
		t.Fatalf("answer %+v", answer)
	}
	l.Granted(l.now, answer.Take.Try)
	l.peer(3)
	l.none()
	l.now = l.now.Add(time.Second)
	l.Failed(l.now, answer.Take.Try, Lost)
	second := l.reserve()
	if second.Try != (Try{w, 2}) || second.Peer != id(3) {
		t.Fatalf("after the loss: %+v", second)
	}
	refusals := map[string]string{}
	for _, s := range second.Scores {
		refusals[s.Name] = s.Refused
	}
	if len(second.Scores) != 4 || second.Scores[0].Name != "p3" || refusals["p0"] != "no free slot" {
		t.Errorf("explanation %+v", second.Scores)
	}
	if l.Current(answer.Take.Try) || !l.Current(second.Try) {
		t.Error("a lost try may still complete the work")
	}
	l.Granted(l.now, second.Try)
	l.Finished(l.now, second.Try, Sample{Duration: time.Second})
	if l.Current(second.Try) || len(l.none()) != 0 {
		t.Error("something is left of a finished work")
	}
	l.Offered(l.now, id(0), Offer{ID: 8, Invocation: "i", Cores: 1})
	if a := l.Decisions()[0].(*Answer); a.Take != nil {
		t.Errorf("with nothing to do: %+v", a)
	}
}

func TestScore(t *testing.T) {
	root := digest.SHA256.Of([]byte("root"))
	for _, c := range []struct {
		name string
		set  func(*lab)
		want byte
	}{
		{"own slots first", func(l *lab) { l.peer(0); l.peer(1) }, 0},
		{"a free peer before the own last slot", func(l *lab) { l.peer(0, free(1)); l.peer(1, func(p *Peer) { p.Bandwidth = 1e9 }) }, 1},
		{"the faster", func(l *lab) { l.peer(0, busy); l.peer(1); l.peer(2, func(p *Peer) { p.Speed = 2 }) }, 2},
		{"the less busy", func(l *lab) { l.peer(0, busy); l.peer(1, free(1)); l.peer(2, free(3)) }, 2},
		{"who has the root", func(l *lab) { l.peer(0, busy); l.peer(1); l.peer(2, free(3)); l.roots.note(root, id(2)) }, 2},
		{"the better connected", func(l *lab) {
			l.peer(0, busy)
			l.peer(1, func(p *Peer) { p.Bandwidth = 1e6 })
			l.peer(2, func(p *Peer) { p.Bandwidth = 1e9 })
		}, 2},
		{"open peers only", func(l *lab) {
			l.peer(0, busy)
			l.peer(1, func(p *Peer) { p.State, p.Speed = Draining, 4 })
			l.peer(2, func(p *Peer) { p.State, p.Speed = Closed, 4 })
			l.peer(3, func(p *Peer) { p.State = Throttled })
		}, 3},
		{"this machine, whatever guests are told", func(l *lab) { l.peer(0, func(p *Peer) { p.State = Closed }) }, 0},
		{"an equal fingerprint", func(l *lab) {
			l.peer(0, busy)
			l.peer(1, func(p *Peer) { p.Offer.Fingerprint, p.Speed = "f2", 4 })
			l.peer(2)
		}, 2},
		{"absurd speed is cut off", func(l *lab) {
			l.peer(0, busy)
			l.peer(1, func(p *Peer) { p.Speed = 1e30; p.Bandwidth = 1e5 })
			l.peer(2, func(p *Peer) { p.Speed = 4 })
		}, 2},
	} {
		l := newLab(t, Options{})
		c.set(l)
		l.submit(func(w *Work) { w.Class, w.Root, w.InputBytes = Fingerprinted, root, 4e6 })
		if got := l.reserve().Peer; got != id(c.want) {
			t.Errorf("%s: placed at %d, want %d", c.name, got[0], c.want)
		}
	}
}

func TestViewIsDecremented(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	for n := byte(1); n <= 3; n++ {
		l.peer(n)
	}
	at := map[peer.ID]int{}
	for range 12 {
		l.submit()
		r := l.reserve()
		at[r.Peer]++
		l.Granted(l.now, r.Try)
	}
	l.submit()
	l.none()
	if at[id(1)] != 4 || at[id(2)] != 4 || at[id(3)] != 4 {
		t.Errorf("12 works on 3 x 4 slots: %v", at)
	}
	l.peer(1, func(p *Peer) { p.At = l.now.Add(-time.Second) }) // a claim older than our leases
	l.none()
	l.now = l.now.Add(time.Second)
	l.peer(1, free(1)) // a newer one
	if r := l.reserve(); r.Peer != id(1) {
		t.Errorf("placed at %v", r.Peer[0])
	}
}

func TestClasses(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1, func(p *Peer) { p.Offer.Fingerprint = "f2" })
	l.submit(func(w *Work) { w.Class = Hermetic })
	if l.reserve().Peer != id(1) {
		t.Error("hermetic work does not cross fingerprints")
	}
	l.submit(func(w *Work) { w.Class = Fingerprinted })
	l.submit(func(w *Work) { w.Class = Local })
	l.none()
	if l.Waiting() != 2 {
		t.Errorf("%d wait", l.Waiting())
	}
}

func TestNoPeerMatches(t *testing.T) {
	for _, c := range []struct {
		property string
		request  platform.Request
	}{
		{"OSFamily", platform.Request{OSFamily: "windows"}},
		{"ISA", platform.Request{OSFamily: "macos", ISA: []string{"x86-64"}}}, // p1 came closer than this machine
		{"cores", platform.Request{Cores: 64}},
		{"min-mem", platform.Request{MemoryBytes: 1 << 40}},
	} {
		l := newLab(t, Options{})
		l.peer(0)
		l.peer(1, func(p *Peer) { p.Offer.OSFamily, p.Offer.ISA = "macos", []string{"arm-a64"} })
		w := l.submit(func(w *Work) { w.Platform = c.request })
		f := l.Decisions()[0].(*Fail)
		e, ok := errors.AsType[*platform.MismatchError](f.Err)
		if !ok || e.Property != c.property || f.Work != w {
			t.Errorf("%+v: %v, want a mismatch of %s", c.request, f.Err, c.property)
		}
	}
	l := newLab(t, Options{})
	l.peer(0)
	for n, pools := range [][]string{{"default"}, {"default", "big"}} {
		l.peer(byte(n+1), func(p *Peer) { p.Offer.Pools = pools })
	}
	l.submit(func(w *Work) { w.Platform.Pool = "huge" })
	if e, ok := errors.AsType[*platform.MismatchError](l.Decisions()[0].(*Fail).Err); !ok || !slices.Equal(e.Offered, []string{"default", "big"}) {
		t.Errorf("the pools that all offer: %v", e)
	}
	l = newLab(t, Options{})
	l.peer(0)
	l.peer(1, func(p *Peer) { p.Offer.OSFamily, p.Offer.Fingerprint = "macos", "others" })
	l.submit(func(w *Work) { w.Class, w.Platform.OSFamily = Fingerprinted, "macos" })
	if e, ok := errors.AsType[*platform.MismatchError](l.Decisions()[0].(*Fail).Err); !ok || e.Property != "host-fingerprint" {
		t.Errorf("a peer with other tools matches in all else: %v", e)
	}
	l = newLab(t, Options{})
	l.peer(0)
	l.peer(1, func(p *Peer) { p.Offer.OSFamily, p.FreeCores = "macos", 0 })
	l.submit(func(w *Work) { w.Class, w.Platform.OSFamily = Hermetic, "macos" })
	if l.none(); l.Waiting() != 1 {
		t.Error("work for a busy peer does not wait")
	}
}

func TestOrder(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	of := func(invocation string, priority int32) func(*Work) {
		return func(w *Work) { w.Invocation, w.Priority = invocation, priority }
	}
	for _, w := range []func(*Work){of("a", 0), of("a", 0), of("a", 0), of("b", 0), of("b", 0), of("c", -1), of("a", 5)} {
		l.submit(w)
	}
	l.none()
	var got []uint64
	for range 7 {
		l.now = l.now.Add(time.Second)
		l.peer(0, free(1))
		r := l.reserve()
		l.Granted(l.now, r.Try)
		got = append(got, r.Work)
	}
	if want := []uint64{6, 1, 4, 2, 5, 3, 7}; !reflect.DeepEqual(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestRefusal(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1)
	l.peer(2, func(p *Peer) { p.Speed = 0.5 })
	w := l.submit()
	r := l.reserve()
	l.Refused(l.now, r.Try, Refusal{Reason: "no free slot"})
	again := l.reserve()
	if r.Peer != id(1) || again.Peer != id(2) || again.Try != (Try{w, 1}) {
		t.Errorf("first %+v, then %+v", r, again)
	}
}

// TestLiar asks a peer that says it has room, and refuses, ever more rarely.
func TestLiar(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1)
	l.submit()
	asked := 0
	for end := l.now.Add(10 * time.Minute); l.now.Before(end); {
		for _, d := range l.Decisions() {
			if r, ok := d.(*Reserve); ok {
				asked++
				l.Refused(l.now, r.Try, Refusal{Reason: "no", FreeCores: 4, FreeBytes: 8 << 30})
			}
		}
		l.now = l.now.Add(time.Second)
		l.Tick(l.now)
		l.peer(1)
	}
	if asked < 5 || asked > 30 {
		t.Errorf("asked %d times in ten minutes", asked)
	}
}

func TestRetryElsewhereThenHere(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	for n := byte(1); n <= 5; n++ {
		l.peer(n)
	}
	w := l.submit()
	seen := map[peer.ID]bool{}
	for attempt := int32(1); attempt <= 3; attempt++ {
		r := l.reserve()
		if r.Try != (Try{w, attempt}) || seen[r.Peer] {
			t.Fatalf("attempt %d: %+v after %v", attempt, r, seen)
		}
		seen[r.Peer] = true
		l.Failed(l.now, r.Try, Lost)
	}
	l.none() // two peers are free, and it waits for this machine
	l.now = l.now.Add(time.Second)
	l.peer(0)
	r := l.reserve()
	if r.Peer != id(0) {
		t.Fatalf("placed at %d", r.Peer[0])
	}
	l.Failed(l.now, r.Try, Lost)
	if e, ok := errors.AsType[*UnavailableError](l.Decisions()[0].(*Fail).Err); !ok || e.Attempts != 4 || e.After <= 0 {
		t.Errorf("in the end: %v", e)
	}
}

func TestUnavailable(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	mac := func(p *Peer) { p.Offer.OSFamily = "macos" }
	l.peer(1, mac)
	l.peer(2, mac)
	w := l.submit(func(w *Work) { w.Class, w.Platform.OSFamily = Hermetic, "macos" })
	l.Failed(l.now, l.reserve().Try, Evicted)
	l.Failed(l.now, l.reserve().Try, Evicted) // nobody's fault: the first is asked again
	l.Failed(l.now, l.reserve().Try, Lost)
	l.Failed(l.now, l.reserve().Try, Lost)
	f := l.Decisions()[0].(*Fail)
	if _, ok := errors.AsType[*UnavailableError](f.Err); !ok || f.Work != w {
		t.Errorf("%+v", f)
	}
}

func TestHedge(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	for range 20 {
		l.run(2 * time.Second)
	}
	l.peer(0, busy)
	l.peer(1)
	w := l.submit()
	slow := l.reserve()
	l.Granted(l.now, slow.Try)
	l.peer(2)
	if due := l.Next(); !due.Equal(l.now.Add(6 * time.Second)) {
		t.Fatalf("looked at after %s, want 3 x median", due.Sub(l.now))
	}
	l.now = l.now.Add(5 * time.Second)
	l.Tick(l.now)
	l.none()
	l.now = l.now.Add(time.Second)
	l.Tick(l.now)
	copied := l.reserve()
	if !copied.Hedge || copied.Peer != id(2) || copied.Try != (Try{w, 2}) {
		t.Fatalf("copy %+v", copied)
	}
	l.Granted(l.now, copied.Try)
	l.now = l.now.Add(time.Hour)
	l.Tick(l.now)
	l.none() // one copy only
	l.Finished(l.now, copied.Try, Sample{Duration: 2 * time.Second})
	if c, ok := l.Decisions()[0].(*Cancel); !ok || c.Try != slow.Try || c.Peer != id(1) {
		t.Errorf("the loser is not cancelled: %+v", c)
	}
	if l.Current(slow.Try) {
		t.Error("the loser may still complete the work")
	}
}

func TestNoHedge(t *testing.T) {
	for name, bend := range map[string]func(*lab, *Work){
		"do_not_cache": func(_ *lab, w *Work) { w.DoNotCache = true },
		"others wait":  func(l *lab, _ *Work) { l.submit(func(w *Work) { w.Class, w.Platform.Cores = Local, 4 }) },
	} {
		l := newLab(t, Options{})
		l.peer(0)
		for range 20 {
			l.run(2 * time.Second)
		}
		l.peer(0, free(1))
		l.submit(func(w *Work) { bend(l, w) })
		l.Granted(l.now, l.reserve().Try)
		l.peer(0, busy)
		l.peer(1, func(p *Peer) { p.Offer.Cores = 3 })
		l.now = l.now.Add(time.Hour)
		l.Tick(l.now)
		for _, d := range l.none() {
			if _, ok := d.(*Ticket); !ok {
				t.Errorf("%s: %T", name, d)
			}
		}
	}
}

func TestEstimates(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, func(p *Peer) { p.Offer.Cores = 8 })
	for range 6 {
		l.submit()
		r := l.reserve()
		l.Finished(l.now, r.Try, Sample{Duration: time.Second, Cores: 2.1, MemoryBytes: 1 << 30})
	}
	l.submit()
	if r := l.reserve(); r.Cores != 2 || r.MemoryBytes < 1<<30 || r.MemoryBytes > 2<<30 {
		t.Errorf("reserved %g cores, %d bytes", r.Cores, r.MemoryBytes)
	}
	l.submit(func(w *Work) { w.Platform.Cores, w.Platform.MemoryBytes = 1, 5<<20 })
	if r := l.reserve(); r.Cores != 1 || r.MemoryBytes != 5<<20 {
		t.Errorf("what was asked for is not reserved: %+v", r)
	}
}

// TestSpeedIsMeasured gives work to a peer that claims to be fast, and is slow.
func TestSpeedIsMeasured(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	for range 20 {
		l.run(time.Second)
	}
	l.peer(0, busy)
	l.peer(1, func(p *Peer) { p.Speed = 8 })
	for range 60 {
		l.run(4 * time.Second)
	}
	if s := l.peers[id(1)].speed; s > 1 {
		t.Errorf("believed speed %.2f, claimed 8, measured a quarter", s)
	}
}

func TestGone(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1)
	w := l.submit()
	l.Granted(l.now, l.reserve().Try)
	l.peer(2)
	l.Gone(l.now, id(1))
	if r := l.reserve(); r.Peer != id(2) || r.Work != w {
		t.Errorf("after the executor went: %+v", r)
	}
	l.Gone(l.now, id(9))
	l.Gone(l.now, id(0)) // this machine never goes
	l.Withdraw(l.now, w)
	if c, ok := l.Decisions()[0].(*Cancel); !ok || c.Peer != id(2) {
		t.Error("a withdrawn work runs on")
	}
}

func TestTickets(t *testing.T) {
	l := newLab(t, Options{Tickets: 8})
	l.peer(0, busy)
	for n := byte(1); n < 100; n++ {
		l.peer(n, busy)
	}
	left := map[peer.ID]bool{}
	for range 50 {
		l.submit()
		for _, d := range l.none() {
			if k := d.(*Ticket); left[k.Peer] {
				t.Fatalf("two tickets at %d", k.Peer[0])
			} else {
				left[k.Peer] = true
			}
		}
	}
	if len(left) != 8 || !left[id(0)] {
		t.Errorf("%d tickets for 50 waiting", len(left))
	}
	for p := range left {
		if p != id(0) {
			l.TicketLost(l.now, p)
		}
	}
	l.submit()
	if n := len(l.none()); n != 7 {
		t.Errorf("%d tickets renewed, 7 were lost", n)
	}
}

// TestSameFactsSameDecisions runs a random scenario twice.
func TestSameFactsSameDecisions(t *testing.T) {
	play := func() (all []string) {
		l := newLab(t, Options{Seed: 3, Explain: true})
		for n := byte(0); n < 40; n++ {
			l.peer(n, func(p *Peer) { p.Speed = 0.5 + float64(n%7)/4 })
		}
		var running []Try
		for i := range 400 {
			l.now = l.now.Add(time.Duration(i%5) * 100 * time.Millisecond)
			switch {
			case i%3 < 2:
				l.submit(func(w *Work) { w.Invocation = fmt.Sprint(i % 4) })
			case len(running) > 0 && i%7 == 0:
				l.Gone(l.now, id(byte(i%40)))
			case len(running) > 0:
				l.Finished(l.now, running[0], Sample{Duration: time.Second})
				running = running[1:]
			}
			for _, d := range l.Decisions() {
				all = append(all, fmt.Sprintf("%T%+v", d, d))
				if r, ok := d.(*Reserve); ok {
					running = append(running, r.Try)
				}
			}
			l.Tick(l.now)
		}
		return all
	}
	a, b := play(), play()
	if len(a) < 200 || !reflect.DeepEqual(a, b) {
		t.Errorf("%d and %d decisions differ", len(a), len(b))
	}
}
