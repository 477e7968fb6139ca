package health

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
)

var (
	self = peer.ID{1}
	ana  = peer.ID{2}
)

// fakePinger answers for those who are up.
type fakePinger struct {
	mu    sync.Mutex // guards all below
	down  map[peer.ID]bool
	hangs bool
	calls []time.Time
	busy  int
	most  int
}

func (f *fakePinger) Ping(ctx context.Context, m roster.Member) error {
	f.mu.Lock()
	f.calls = append(f.calls, time.Now())
	f.busy++
	f.most = max(f.most, f.busy)
	hangs, down := f.hangs, f.down[m.ID]
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.busy--
		f.mu.Unlock()
	}()
	if hangs {
		<-ctx.Done()
		return errors.New("no answer")
	}
	if down {
		return errors.New("connection refused")
	}
	return nil
}

// looks is how often anybody was looked at.
func (f *fakePinger) looks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fakePinger) set(id peer.ID, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down[id] = down
}

// world is a roster with ana in it, looked after, in a bubble.
func world(t *testing.T, play func(r *roster.Roster, h *Health, f *fakePinger)) {
	synctest.Test(t, func(t *testing.T) {
		r := roster.Open("", self, func(err error) { t.Error(err) })
		f := &fakePinger{down: make(map[peer.ID]bool)}
		h := New(r, f)
		r.ClaimAlive(roster.Member{ID: ana, Boot: "a", Gossip: netip.MustParseAddrPort("10.0.0.1:1")})
		synctest.Wait()
		play(r, h, f)
		h.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// state is ana's, once everything has settled.
func state(r *roster.Roster) roster.State {
	synctest.Wait()
	m, _ := r.Now().Get(ana)
	return m.State
}

func TestLooks(t *testing.T) {
	world(t, func(r *roster.Roster, h *Health, f *fakePinger) {
		time.Sleep(time.Hour)
		if got := state(r); got != roster.Alive || f.looks() != 0 {
			t.Errorf("%v after %d looks at a member that is well", got, f.looks())
		}
		r.ClaimGone(ana, "a", false) // forged: she is well
		if got := state(r); got != roster.Alive || f.looks() != 1 {
			t.Errorf("%v after %d looks: gossip beat own evidence", got, f.looks())
		}
		time.Sleep(time.Minute) // gossip stays with it
		if got := state(r); got != roster.Alive || f.looks() > 8 {
			t.Errorf("%v after %d looks", got, f.looks())
		}
		f.set(ana, true)
		time.Sleep(11 * time.Second)
		if got := state(r); got != roster.Dead {
			t.Errorf("%v, and she answers no more", got)
		}
		before := f.looks()
		time.Sleep(time.Hour)
		if f.looks() != before {
			t.Errorf("%d looks at the dead", f.looks()-before)
		}
	})
}

func TestUndialable(t *testing.T) {
	world(t, func(r *roster.Roster, h *Health, f *fakePinger) {
		f.set(ana, true)
		h.Check(ana) // a stream broke
		if got := state(r); got != roster.Suspect || f.looks() != 1 {
			t.Fatalf("%v after %d looks", got, f.looks())
		}
		time.Sleep(time.Hour)
		state(r)
		// 2, 4, 8, 16, 32 s, and then one a minute.
		if n := f.looks(); n < 55 || n > 70 {
			t.Errorf("%d looks in an hour", n)
		}
		f.set(ana, false)
		time.Sleep(longestPause)
		if got := state(r); got != roster.Alive {
			t.Errorf("%v, and she answers again", got)
		}
		h.Check(peer.ID{99}) // nobody
		h.Check(ana)
		if got := state(r); got != roster.Alive || len(h.looks) != 0 {
			t.Errorf("%v, %d looks kept", got, len(h.looks))
		}
	})
}

func TestAnotherBootIsLookedAtOnce(t *testing.T) {
	world(t, func(r *roster.Roster, h *Health, f *fakePinger) {
		f.set(ana, true)
		h.Check(ana)
		time.Sleep(10 * time.Minute)
		f.set(ana, false)
		r.ClaimAlive(roster.Member{ID: ana, Boot: "b"})
		r.ClaimGone(ana, "a", false)
		r.ClaimGone(ana, "b", false)
		if got := state(r); got != roster.Alive {
			t.Errorf("%v: the new start waits for the old one's pause", got)
		}
	})
}

// TestManyAtOnce loses half an office.
func TestManyAtOnce(t *testing.T) {
	world(t, func(r *roster.Roster, h *Health, f *fakePinger) {
		f.hangs = true
		for i := range 100 {
			id := peer.ID{9, byte(i)}
			r.ClaimAlive(roster.Member{ID: id, Boot: "a"})
			r.ClaimGone(id, "a", false)
		}
		time.Sleep(3100 * time.Millisecond)
		synctest.Wait()
		if f.most > maxLooks {
			t.Errorf("%d looks at once", f.most)
		}
		if n := len(r.Now().In(roster.Dead)); n != 100 {
			t.Errorf("%d of 100 known dead", n)
		}
	})
}

// TestClose breaks off what hangs, and blames nobody for it.
func TestClose(t *testing.T) {
	world(t, func(r *roster.Roster, h *Health, f *fakePinger) {
		f.hangs = true
		h.Check(ana)
		synctest.Wait()
		began := time.Now()
		h.Close()
		if time.Since(began) != 0 || state(r) != roster.Alive {
			t.Errorf("closed after %v, ana %v", time.Since(began), state(r))
		}
	})
}
