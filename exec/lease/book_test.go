package lease

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

var (
	epoch0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	self   = peer.ID{9}
	ana    = peer.ID{1}
	ben    = peer.ID{2}
)

// ledger is a Book with a clock and lease names that count.
type ledger struct {
	*Book
	t   testing.TB
	now time.Time
}

func newLedger(t testing.TB, cores float64) *ledger {
	next := byte(0)
	return &ledger{NewBook(cores, 8<<30, Options{Self: self, NewID: func() ID { next++; return ID{next} }}), t, epoch0}
}

func act(name string) digest.Digest { return digest.SHA256.Of([]byte(name)) }

// ask reserves one core; bend changes the request.
func (l *ledger) ask(who peer.ID, name string, bend ...func(*Request)) (Claim, *Refusal) {
	r := Request{Caller: who, Action: act(name), Invocation: "i", Attempt: 1, Epoch: 5, Cores: 1}
	for _, b := range bend {
		b(&r)
	}
	id, _, refusal := l.Reserve(l.now, r)
	return Claim{id, who, r.Attempt, r.Epoch}, refusal
}

// lease reserves and starts.
func (l *ledger) lease(who peer.ID, name string, bend ...func(*Request)) Claim {
	l.t.Helper()
	c, refusal := l.ask(who, name, bend...)
	if refusal != nil {
		l.t.Fatalf("refused: %s", refusal.Reason)
	}
	if _, begin, err := l.Start(l.now, c, act(name)); err != nil || !begin {
		l.t.Fatalf("start: %v, %v", begin, err)
	}
	return c
}

// pass lets time go by, beating for the given claims.
func (l *ledger) pass(d time.Duration, beating ...Claim) {
	for end := l.now.Add(d); l.now.Before(end); {
		l.now = l.now.Add(min(BeatEvery, end.Sub(l.now)))
		for _, c := range beating {
			_ = l.Beat(l.now, c)
		}
		l.Tick(l.now)
	}
}

// killed takes the effects and counts kills and unpins.
func (l *ledger) killed() (kills, unpins int) {
	for _, e := range l.Effects() {
		switch e.(type) {
		case *Kill:
			kills++
		case *Unpin:
			unpins++
		}
	}
	return kills, unpins
}

func TestFencing(t *testing.T) {
	l := newLedger(t, 4)
	c := l.lease(ana, "a")
	for name, bend := range map[string]func(*Claim){
		"forged lease":   func(c *Claim) { c.Lease[5] = 77 },
		"another caller": func(c *Claim) { c.Caller = ben },
		"old attempt":    func(c *Claim) { c.Attempt = 0 },
		"later attempt":  func(c *Claim) { c.Attempt = 2 },
		"another epoch":  func(c *Claim) { c.Epoch = 4 },
	} {
		wrong := c
		bend(&wrong)
		_, _, err := l.Start(l.now, wrong, act("a"))
		if !errors.Is(err, ErrStale) || !errors.Is(l.Beat(l.now, wrong), ErrStale) || !errors.Is(l.Ack(l.now, wrong), ErrStale) {
			t.Errorf("%s: accepted", name)
		}
		l.Cancel(l.now, wrong)
		if kills, _ := l.killed(); kills != 0 {
			t.Errorf("%s: kills", name)
		}
	}
	if _, _, err := l.Start(l.now, c, act("b")); !errors.Is(err, ErrStale) {
		t.Error("the lease runs another action")
	}
	l.Finished(l.now, c.Lease)
	if err := l.Ack(l.now, c); err != nil {
		t.Error(err)
	}
	if err := l.Ack(l.now, c); !errors.Is(err, ErrStale) {
		t.Error("acknowledged twice")
	}
}

// A call that breaks shortens the life of a lease whose action runs, until there is another call.
func TestBrokenCallTimes(t *testing.T) {
	l := newLedger(t, 4)
	c := l.lease(ana, "orphan")
	l.Broke(l.now, c)
	l.pass(TTL - time.Millisecond)
	if kills, _ := l.killed(); kills != 0 {
		t.Fatal("killed before it is too late for another call")
	}
	if _, begin, err := l.Start(l.now, c, act("orphan")); begin || err != nil {
		t.Fatal(begin, err)
	}
	l.pass(TTL + Grace - time.Millisecond)
	if kills, _ := l.killed(); kills != 0 {
		t.Fatal("killed though there is another call")
	}
	l.Broke(l.now, c)
	l.pass(time.Millisecond)
	if kills, _ := l.killed(); kills != 1 {
		t.Fatal("it lives longer because its call broke")
	}
	l.Finished(l.now, c.Lease)

	c = l.lease(ana, "orphan")
	l.Broke(l.now, c)
	l.pass(TTL)
	if kills, _ := l.killed(); kills != 1 {
		t.Error("not killed 10 s after its call broke")
	}
	l.Finished(l.now, c.Lease)
	l.killed()

	c = l.lease(ana, "fetched")
	l.Finished(l.now, c.Lease)
	l.Broke(l.now, c)
	l.pass(TTL + Grace - time.Millisecond)
	if _, unpins := l.killed(); unpins != 0 {
		t.Error("outputs are let go while they may be fetched")
	}
}

func TestTimes(t *testing.T) {
	l := newLedger(t, 4)
	never, _ := l.ask(ana, "never run")
	l.pass(TTL, never) // a reservation is not renewed by beats
	if cores, _ := l.Free(); cores != 4 {
		t.Error("a lease that was not run holds its slot")
	}
	c := l.lease(ana, "a")
	l.pass(time.Hour, c)
	if kills, _ := l.killed(); kills != 0 {
		t.Fatal("killed while it beats")
	}
	l.pass(TTL + Grace - time.Millisecond)
	if kills, _ := l.killed(); kills != 0 {
		t.Fatal("killed within the grace")
	}
	l.pass(time.Millisecond)
	if kills, _ := l.killed(); kills != 1 {
		t.Fatal("not killed after 10 s + 10 s")
	}
	l.Finished(l.now, c.Lease)
	if _, unpins := l.killed(); unpins != 1 {
		t.Error("pins are left of a killed run")
	}

	c = l.lease(ana, "b")
	l.Finished(l.now, c.Lease)
	l.pass(HoldMax-time.Second, c)
	if _, unpins := l.killed(); unpins != 0 {
		t.Error("unpinned while it beats")
	}
	l.pass(time.Second, c)
	if _, unpins := l.killed(); unpins != 1 {
		t.Error("an initiator that beats for ever holds pins for ever")
	}
	own := l.lease(self, "c")
	l.pass(time.Hour)
	if kills, _ := l.killed(); kills != 0 {
		t.Error("the own action needs beats")
	}
	l.Finished(l.now, own.Lease)
}

func TestNoQueue(t *testing.T) {
	l := newLedger(t, 2)
	l.lease(ana, "a")
	l.lease(ben, "b")
	_, refusal := l.ask(ana, "c")
	if refusal == nil || refusal.FreeCores != 0 || refusal.Reason != "no free slot" {
		t.Errorf("%+v", refusal)
	}
	for name, bend := range map[string]func(*Request){
		"no cores": func(r *Request) { r.Cores = 0 }, "not a number": func(r *Request) { r.Cores = math.NaN() },
		"absurd cores": func(r *Request) { r.Cores = 1e9 }, "negative memory": func(r *Request) { r.MemoryBytes = -1 },
		"no attempt": func(r *Request) { r.Attempt = 0 }, "no action": func(r *Request) { r.Action = digest.Digest{} },
	} {
		if _, refusal := newLedger(t, 4).ask(ana, "x", bend); refusal == nil {
			t.Errorf("%s: granted", name)
		}
	}
	if _, refusal := newLedger(t, 4).ask(ana, "x", func(r *Request) { r.MemoryBytes = 9 << 30 }); refusal == nil {
		t.Error("more memory granted than there is")
	}
}

func TestTicketsInTurn(t *testing.T) {
	l := newLedger(t, 1)
	running := l.lease(self, "first")
	for _, k := range []struct {
		who        peer.ID
		invocation string
	}{{ana, "x"}, {ana, "y"}, {ana, "z"}, {ben, "x"}} {
		l.Ticket(l.now, Ticket{Caller: k.who, Invocation: k.invocation, Cores: 1})
	}
	var got []string
	for i := range 6 {
		l.Finished(l.now, running.Lease)
		_ = l.Ack(l.now, running)
		var o *Offered
		for _, e := range l.Effects() {
			if x, ok := e.(*Offered); ok {
				o = x
			}
		}
		if o == nil {
			t.Fatal("no offer")
		}
		got = append(got, fmt.Sprint(o.Caller[0], o.Invocation))
		if _, refusal := l.ask(ben, "thief"); refusal == nil {
			t.Fatal("a slot that is held for an offer was given to another")
		}
		r := Request{Caller: o.Caller, Action: act(fmt.Sprint(i)), Attempt: 1, Cores: 1}
		id, _, refusal := l.Take(l.now, o.Offer, r)
		if refusal != nil {
			t.Fatal(refusal.Reason)
		}
		running = Claim{id, o.Caller, 1, 0}
		if _, _, err := l.Start(l.now, running, r.Action); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"1x", "2x", "1y", "2x", "1z", "2x"}; !reflect.DeepEqual(got, want) {
		t.Errorf("offers %q, want %q", got, want)
	}
}

func TestOffersEnd(t *testing.T) {
	l := newLedger(t, 1)
	l.Ticket(l.now, Ticket{Caller: ana, Invocation: "x", Cores: 1})
	l.Ticket(l.now, Ticket{Caller: ben, Invocation: "x", Cores: 1})
	first := l.Effects()[0].(*Offered)
	l.Pass(l.now, ben, first.Offer) // not ben's to pass
	if len(l.Effects()) != 0 {
		t.Error("another's offer was passed")
	}
	l.Pass(l.now, ana, first.Offer)
	second := l.Effects()[0].(*Offered)
	if second.Caller != ben {
		t.Fatalf("after a pass: %+v", second)
	}
	l.pass(OfferTTL) // no answer
	if cores, _ := l.Free(); cores != 1 || l.Usage().Tickets != 0 {
		t.Errorf("%g free, %+v", cores, l.Usage())
	}
	id, _, refusal := l.Take(l.now, second.Offer, Request{Caller: ben, Action: act("late"), Attempt: 1, Cores: 1})
	if refusal != nil || id == (ID{}) {
		t.Error("a late answer is not tried as a reservation")
	}
	l.Ticket(l.now, Ticket{Caller: ana, Invocation: "x", Cores: 1})
	l.Leave(l.now, ana)
	if l.Usage().Tickets != 0 {
		t.Error("tickets outlive their call")
	}
}

// TestWideTicket is passed by narrow ones, but not for ever.
func TestWideTicket(t *testing.T) {
	l := newLedger(t, 4)
	wide := false
	l.Ticket(l.now, Ticket{Caller: ana, Invocation: "wide", Cores: 4})
	for _, e := range l.Effects() {
		l.Pass(l.now, ana, e.(*Offered).Offer)
	}
	var running []Claim
	for i := range 4 {
		running = append(running, l.lease(ben, fmt.Sprint("n", i)))
	}
	l.Ticket(l.now, Ticket{Caller: ana, Invocation: "wide", Cores: 4})
	l.Ticket(l.now, Ticket{Caller: ben, Invocation: "narrow", Cores: 1})
	for i := 0; i < 200 && !wide; i++ {
		if len(running) > 0 {
			c := running[0]
			running = running[1:]
			l.Finished(l.now, c.Lease)
			_ = l.Ack(l.now, c)
		}
		for _, e := range l.Effects() {
			o, ok := e.(*Offered)
			if !ok {
				continue
			}
			if wide = wide || o.Invocation == "wide"; wide {
				break
			}
			id, _, _ := l.Take(l.now, o.Offer, Request{Caller: ben, Action: act(fmt.Sprint(i)), Attempt: 1, Cores: 1})
			c := Claim{id, ben, 1, 0}
			if _, _, err := l.Start(l.now, c, act(fmt.Sprint(i))); err == nil {
				running = append(running, c)
			}
		}
	}
	if !wide {
		t.Error("narrow tickets starve the wide one")
	}
}

// TestTicketsOfTwoWidths: an invocation that wants much and little is offered little while there is not much.
func TestTicketsOfTwoWidths(t *testing.T) {
	l := newLedger(t, 4)
	running := l.lease(ben, "long")
	for _, cores := range []float64{4, 1, 1} {
		l.Ticket(l.now, Ticket{Caller: ana, Invocation: "x", Cores: cores})
	}
	if n := l.Usage().Tickets; n != 2 {
		t.Errorf("%d tickets", n)
	}
	offer := func(cores float64) {
		t.Helper()
		var offers []*Offered
		for _, e := range l.Effects() {
			if o, ok := e.(*Offered); ok {
				offers = append(offers, o)
			}
		}
		if len(offers) != 1 || offers[0].Cores != cores {
			t.Fatalf("offers %+v, want one of %g cores", offers, cores)
		}
		l.Pass(l.now, ana, offers[0].Offer)
	}
	offer(1)
	l.Finished(l.now, running.Lease)
	_ = l.Ack(l.now, running)
	offer(4)
	if n := l.Usage().Tickets; n != 0 {
		t.Errorf("%d tickets are left", n)
	}
}

// TestTooWideTicket: a ticket for more than guests may have now is passed as often as it likes and holds nobody up; when
// there is as much again its turn comes.
func TestTooWideTicket(t *testing.T) {
	l := newLedger(t, 4)
	l.Lend(l.now, 2, "")
	l.Ticket(l.now, Ticket{Caller: ana, Invocation: "wide", Cores: 3})
	for i := range 2 * maxBypass {
		name := fmt.Sprint(i)
		c := l.lease(ben, name)
		l.Ticket(l.now, Ticket{Caller: ben, Invocation: "narrow", Cores: 1})
		for _, e := range l.Effects() {
			if o, offered := e.(*Offered); offered {
				l.Pass(l.now, ben, o.Offer)
			}
		}
		l.Finished(l.now, c.Lease)
		_ = l.Ack(l.now, c)
	}
	l.Effects()
	l.Lend(l.now, 4, "")
	if e := l.Effects(); len(e) != 1 || e[0].(*Offered).Invocation != "wide" {
		t.Errorf("when all is lent again: %v", e)
	}
}

func TestLendAndEvict(t *testing.T) {
	l := newLedger(t, 4)
	l.Lend(l.now, 1, "the machine is hot")
	guest := l.lease(ana, "a")
	if _, refusal := l.ask(ana, "b"); refusal == nil || refusal.Reason != "no free slot for guests: the machine is hot" {
		t.Errorf("%+v", refusal)
	}
	own := l.lease(self, "own")
	l.Lend(l.now, 0, "")
	if _, refusal := l.ask(ben, "c"); refusal == nil || refusal.Reason != "takes no guests now" {
		t.Errorf("%+v", refusal)
	}
	l.Effects()
	l.Evict(l.now, 30*time.Second)
	if w := l.Effects()[0].(*Warn); w.Lease != guest.Lease || w.Grace != 30*time.Second {
		t.Errorf("%+v", w)
	}
	l.pass(30*time.Second, guest)
	if kills, _ := l.killed(); kills != 1 {
		t.Errorf("%d kills after the grace, the own action is not evicted", kills)
	}
	l.Finished(l.now, guest.Lease)
	l.Expel(l.now, ana)
	_ = l.Ack(l.now, own)
}

func TestJoin(t *testing.T) {
	l := newLedger(t, 1)
	first := l.lease(ana, "a")
	second, refusal := l.ask(ben, "a")
	if refusal != nil {
		t.Fatal(refusal.Reason)
	}
	if id, begin, err := l.Start(l.now, second, act("a")); err != nil || begin || id != first.Lease {
		t.Errorf("%v, %v", begin, err)
	}
	for name, refusal := range map[string]func() *Refusal{
		"alone":            func() *Refusal { _, r := l.ask(self, "a", func(r *Request) { r.Alone = true }); return r },
		"the same again":   func() *Refusal { _, r := l.ask(ana, "a", func(r *Request) { r.Attempt = 2 }); return r },
		"with more memory": func() *Refusal { _, r := l.ask(self, "a", func(r *Request) { r.MemoryBytes = 1 << 30 }); return r },
	} {
		if refusal() == nil {
			t.Errorf("%s: joined", name)
		}
	}
	l.Cancel(l.now, first)
	if kills, _ := l.killed(); kills != 0 {
		t.Error("killed while another waits for it")
	}
	l.Finished(l.now, first.Lease)
	if _, unpins := l.killed(); unpins != 0 {
		t.Error("unpinned before the other has it")
	}
	if _, refusal := l.ask(self, "b"); refusal != nil {
		t.Error("a finished run holds its slot")
	}
	_ = l.Ack(l.now, second)
	if _, unpins := l.killed(); unpins != 1 {
		t.Error("not unpinned")
	}
}

// balanced checks that free, used and held room add up to the four cores.
func (l *ledger) balanced(when string) {
	l.t.Helper()
	used, held := 0.0, 0.0
	for _, x := range l.runs {
		if x.phase != finished {
			used += x.cores
		}
	}
	for _, o := range l.tickets.offers {
		held += o.cores
	}
	if l.freeCores < -1e-9 || math.Abs(l.freeCores+used+held-4) > 1e-9 {
		l.t.Fatalf("%s: %g free + %g used + %g held of 4", when, l.freeCores, used, held)
	}
}

// TestNothingIsLost plays at random and checks after every step that no room is made or lost.
func TestNothingIsLost(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		l := newLedger(t, 4)
		l.options.NewID = NewID
		callers := []peer.ID{self, ana, ben, {3}}
		var claims []Claim
		actions := map[ID]digest.Digest{}
		runs := map[ID]bool{}
		var offers []*Offered
		for step := range 2000 {
			who := callers[random.IntN(len(callers))]
			name := fmt.Sprint(random.IntN(6))
			switch random.IntN(12) {
			case 0, 1, 2:
				if c, refusal := l.ask(who, name, func(r *Request) { r.Cores, r.Alone = float64(1+random.IntN(2)), random.IntN(3) == 0 }); refusal == nil {
					claims = append(claims, c)
					actions[c.Lease] = act(name)
				}
			case 3, 4, 5:
				if len(claims) > 0 {
					c := claims[random.IntN(len(claims))]
					if id, begin, err := l.Start(l.now, c, actions[c.Lease]); err == nil && begin {
						runs[id] = true
					}
				}
			case 6, 7:
				for id := range runs {
					l.Finished(l.now, id)
					delete(runs, id)
					break
				}
			case 8:
				if len(claims) > 0 {
					c := claims[random.IntN(len(claims))]
					if random.IntN(2) == 0 {
						l.Cancel(l.now, c)
					} else {
						_ = l.Ack(l.now, c)
					}
				}
			case 9:
				l.Ticket(l.now, Ticket{Caller: who, Invocation: name, Cores: float64(1 + random.IntN(4))})
			case 10:
				if len(offers) > 0 {
					o := offers[0]
					offers = offers[1:]
					if random.IntN(2) == 0 {
						l.Pass(l.now, o.Caller, o.Offer)
					} else if id, _, refusal := l.Take(l.now, o.Offer, Request{Caller: o.Caller, Action: act(name), Attempt: 1, Cores: o.Cores}); refusal == nil {
						claims = append(claims, Claim{id, o.Caller, 1, 0})
						actions[id] = act(name)
					}
				}
			case 11:
				l.pass(time.Duration(random.IntN(6000)) * time.Millisecond)
				l.Lend(l.now, float64(random.IntN(5)), "")
			}
			for _, e := range l.Effects() {
				if o, ok := e.(*Offered); ok {
					offers = append(offers, o)
				}
			}
			l.balanced(fmt.Sprintf("seed %d, step %d", seed, step))
		}
		l.Close(l.now)
		for id := range runs {
			l.Finished(l.now, id)
		}
		if l.freeCores != 4 || len(l.leases) != 0 || len(l.runs) != 0 || len(l.counts) != 0 || l.guestsInUse > 1e-9 {
			t.Fatalf("seed %d: left %g free, %d leases, %d runs, %g lent", seed, l.freeCores, len(l.leases), len(l.runs), l.guestsInUse)
		}
	}
}
