package place

import (
	"testing"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Works of one invocation that need unlike many cores have a ticket each: the narrow one is offered what it needs, while the
// wide one waits and after it is gone.
func TestTicketsOfTwoWidths(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1, busy)
	atOne := func() (cores []float64) {
		t.Helper()
		for _, d := range l.none() {
			if k, ok := d.(*Ticket); ok && k.Peer == id(1) {
				cores = append(cores, k.Cores)
			}
		}
		return cores
	}
	wide := l.submit(func(w *Work) { w.Platform.Cores = 4 })
	if got := atOne(); len(got) != 1 || got[0] != 4 {
		t.Fatalf("tickets for %v cores", got)
	}
	narrow := l.submit(func(w *Work) { w.Platform.Cores = 1 })
	if got := atOne(); len(got) != 1 || got[0] != 1 {
		t.Fatalf("tickets for %v cores beside that for 4", got)
	}
	l.Offered(l.now, id(1), Offer{ID: 1, Invocation: "i", Cores: 1})
	a := l.Decisions()[0].(*Answer)
	if a.Take == nil || a.Take.Work != narrow || a.Take.Cores != 1 {
		t.Fatalf("%+v", a)
	}
	l.Offered(l.now, id(1), Offer{ID: 2, Invocation: "i", Cores: 1})
	if a := l.Decisions()[0].(*Answer); a.Take != nil {
		t.Fatalf("one core is taken for %+v", a.Take)
	}
	l.Offered(l.now, id(1), Offer{ID: 3, Invocation: "i", Cores: 4})
	if a := l.Decisions()[0].(*Answer); a.Take == nil || a.Take.Work != wide {
		t.Fatalf("%+v", a)
	}
	l.submit(func(w *Work) { w.Platform.Cores = 1 })
	if got := atOne(); len(got) != 1 || got[0] != 1 {
		t.Errorf("tickets for %v cores after that was passed", got)
	}
}

// Initiators that know the same peers leave their first tickets at different ones.
func TestTicketsAreSpread(t *testing.T) {
	first := map[peer.ID]bool{}
	for seed := range uint64(8) {
		l := newLab(t, Options{Seed: seed})
		for n := range byte(200) {
			l.peer(n+1, busy)
		}
		l.submit()
		tickets := l.none()
		if len(tickets) != 2 {
			t.Fatalf("%d tickets for one that waits", len(tickets))
		}
		first[tickets[0].(*Ticket).Peer] = true
	}
	if len(first) < 7 {
		t.Errorf("eight initiators begin at %d peers", len(first))
	}
}
