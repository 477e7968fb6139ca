package place

import (
	"testing"
	"time"
)

// slowTry makes a try at peer 1 of a Work whose kind takes 2 s, and lets it become slow. This machine is busy.
func slowTry(l *lab) *Reserve {
	l.t.Helper()
	l.peer(0)
	for range 20 {
		l.run(2 * time.Second)
	}
	l.peer(0, busy)
	l.peer(1)
	l.submit()
	slow := l.reserve()
	l.now = l.now.Add(6 * time.Second)
	l.peer(1, busy)
	return slow
}

// A slow try gets its copy in the moment in which nothing waits any more.
func TestCopyWhenQueueIsEmpty(t *testing.T) {
	l := newLab(t, Options{})
	slow := slowTry(l)
	w := l.submit(func(w *Work) { w.Class = Local })
	l.peer(2)
	l.Tick(l.now)
	l.none()
	l.Withdraw(l.now, w)
	if r := l.reserve(); !r.Hedge || r.Work != slow.Work || r.Peer != id(2) {
		t.Errorf("%+v", r)
	}
}

// What waited before counts for nothing: the wait for a faster peer begins when the queue is empty.
func TestCopyWaitsFromEmptyQueueOn(t *testing.T) {
	l := newLab(t, Options{})
	slowTry(l)
	w := l.submit(func(w *Work) { w.Class = Local })
	l.peer(2, func(p *Peer) { p.Speed = 0.5 })
	l.peer(3, func(p *Peer) { p.Speed = 2 }, busy)
	l.Tick(l.now)
	l.now = l.now.Add(time.Minute)
	l.Withdraw(l.now, w)
	l.none()
	if due := l.Next(); !due.Equal(l.now.Add(9 * time.Second)) {
		t.Errorf("looked at again after %s", due.Sub(l.now))
	}
}

// A reservation that is never answered is slow too.
func TestCopyOfWhatIsNotAnswered(t *testing.T) {
	l := newLab(t, Options{})
	slow := slowTry(l)
	l.peer(2)
	if due := l.Next(); !due.Equal(l.now) {
		t.Fatalf("looked at %s, now is %s", due, l.now)
	}
	l.Tick(l.now)
	if r := l.reserve(); !r.Hedge || r.Work != slow.Work {
		t.Errorf("%+v", r)
	}
}

// A copy waits for a faster peer, but no longer than that one would save: of 6 s of work, 9 s when it is four times as fast.
func TestCopyWaitsForFasterPeer(t *testing.T) {
	for _, freed := range []time.Duration{0, time.Second, 9 * time.Second, time.Minute} {
		l := newLab(t, Options{})
		slow := slowTry(l)
		l.peer(2, func(p *Peer) { p.Speed = 0.5 })
		l.peer(3, func(p *Peer) { p.Speed = 2 }, busy)
		began, want := l.now, id(3)
		if freed == 0 {
			l.peer(3)
		}
		l.Tick(l.now)
		if freed > 0 {
			l.none()
			due := l.Next()
			if !due.Equal(l.now.Add(9 * time.Second)) {
				t.Fatalf("looked at again after %s", due.Sub(l.now))
			}
			if l.now = began.Add(freed); l.now.After(due) {
				l.now, want = due, id(2)
			} else {
				l.peer(3)
			}
			l.Tick(l.now)
		}
		if r := l.reserve(); !r.Hedge || r.Work != slow.Work || r.Peer != want {
			t.Errorf("the faster one is free after %s: %+v", freed, r)
		}
	}
}

// A slow try whose copy was lost gets another.
func TestCopyOfLostCopy(t *testing.T) {
	l := newLab(t, Options{})
	slow := slowTry(l)
	l.peer(2)
	l.Tick(l.now)
	lost := l.reserve()
	l.peer(3)
	l.none()
	l.Failed(l.now, lost.Try, Lost)
	l.Tick(l.now)
	if r := l.reserve(); !r.Hedge || r.Work != slow.Work || r.Peer != id(3) || r.Attempt != 3 {
		t.Errorf("%+v", r)
	}
}
