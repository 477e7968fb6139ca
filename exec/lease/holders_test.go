package lease

import (
	"math"
	"reflect"
	"testing"

	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// TestHolders: who uses the machine is told by initiator, until it does not any more.
func TestHolders(t *testing.T) {
	l := newLedger(t, 8)
	l.Lend(l.now, 8, "")
	l.lease(ana, "a")
	two := func(r *Request) { r.Cores = 2 }
	l.lease(ana, "b", two)
	c := l.lease(ben, "c")
	if _, refusal := l.ask(ben, "a"); refusal != nil { // joins ana's
		t.Fatal(refusal)
	}
	if got, want := l.Holders(), []Holder{{ana, 3, 2}, {ben, 1, 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	l.Cancel(l.now, c)
	for _, e := range l.Effects() {
		if k, is := e.(*Kill); is {
			l.Finished(l.now, k.Lease)
		}
	}
	if got := l.Holders(); len(got) != 1 || got[0].Peer != ana {
		t.Errorf("after a cancellation: %v", got)
	}
}

// TestHoldersFrom: an absurd answer of a peer is bounded.
func TestHoldersFrom(t *testing.T) {
	absurd := &leasev1.OccupancyResponse{Holders: []*leasev1.Holder{
		{Peer: ana[:], Cores: 1e300, Actions: math.MaxInt64}, {Peer: []byte("short"), Cores: 1}, {Peer: ben[:], Cores: math.NaN()}, {Peer: ben[:], Cores: -1}, {Peer: ben[:], Cores: 1},
	}}
	for range 1000 {
		absurd.Holders = append(absurd.Holders, &leasev1.Holder{Peer: ben[:], Cores: 1})
	}
	got := HoldersFrom(absurd, 4)
	sum := 0.0
	for _, h := range got {
		sum += h.Cores
	}
	if len(got) > maxHolders || sum > 4 || got[0].Actions > 1<<20 {
		t.Errorf("%d holders of %g cores: %v", len(got), sum, got[0])
	}
}
