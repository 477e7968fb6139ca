package place

import (
	"errors"
	"testing"
)

// TestOutOfMemoryElsewhere: what only peers say is tried here, with all the memory there is, before it is the last word.
func TestOutOfMemoryElsewhere(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, busy)
	l.peer(1)
	w := l.submit()
	l.Starved(l.now, l.reserve().Try, 1<<62)
	l.peer(0)
	last := l.reserve()
	if last.Peer != id(0) || last.MemoryBytes != l.self.Offer.MemoryBytes || last.Limit != last.MemoryBytes {
		t.Errorf("the last try: %+v", last)
	}
	l.Starved(l.now, last.Try, last.MemoryBytes)
	if f := l.Decisions()[0].(*Fail); f.Work != w {
		t.Errorf("%+v", f)
	}
}

// TestOutOfMemory: an action that ran out of memory is run again where there is twice as much, then with the most
// that a peer has, and in the end here.
func TestOutOfMemory(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	l.peer(1, func(p *Peer) { p.Offer.MemoryBytes = 64 << 30 })
	w := l.submit(func(w *Work) { w.Platform.MemoryBytes = 6 << 30 })
	r := l.reserve()
	l.Failed(l.now, r.Try, OutOfMemory)
	again := l.reserve()
	if again.Peer != id(1) || again.MemoryBytes != 12<<30 || again.Try != (Try{w, 2}) {
		t.Errorf("second try %+v", again)
	}
	l.Failed(l.now, again.Try, OutOfMemory)
	for _, want := range []int64{24 << 30, 64 << 30, l.self.Offer.MemoryBytes} {
		r := l.reserve()
		if r.MemoryBytes != want || r.Limit != want {
			t.Errorf("tried with %d, limit %d, want %d", r.MemoryBytes, r.Limit, want)
		}
		l.Failed(l.now, r.Try, OutOfMemory)
	}
	if e, ok := errors.AsType[*MemoryError](l.Decisions()[0].(*Fail).Err); !ok || e.Bytes != l.self.Offer.MemoryBytes {
		t.Errorf("in the end: %v", e)
	}
}

// TestOutOfMemoryOfSmallMachines: where nobody has twice as much, an action gets the most that is to be had, also here, where it
// ran with less before.
func TestOutOfMemoryOfSmallMachines(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0, func(p *Peer) { p.Offer.MemoryBytes, p.FreeBytes = 300<<20, 300<<20 })
	w := l.submit(func(w *Work) { w.Platform.MemoryBytes = 50 << 20 })
	l.Starved(l.now, l.reserve().Try, 50<<20)
	again := l.reserve()
	if again.Peer != id(0) || again.MemoryBytes != 300<<20 || again.Limit != 300<<20 {
		t.Errorf("second try %+v", again)
	}
	l.Starved(l.now, again.Try, 300<<20)
	f := l.Decisions()[0].(*Fail)
	if e, ok := errors.AsType[*MemoryError](f.Err); f.Work != w || !ok || e.Bytes != 300<<20 {
		t.Errorf("in the end: %+v", f)
	}
}

// TestRanHereWithLess: what a peer says is tried here, also when it ran here before with less memory than there is.
func TestRanHereWithLess(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	l.submit(func(w *Work) { w.Platform.MemoryBytes = 50 << 20 })
	first := l.reserve()
	l.peer(0, busy)
	l.peer(1)
	l.Starved(l.now, first.Try, 50<<20)
	second := l.reserve()
	if first.Peer != id(0) || second.Peer != id(1) {
		t.Fatalf("tried at %v and %v", first.Peer, second.Peer)
	}
	l.Starved(l.now, second.Try, 1<<62)
	l.peer(0)
	if last := l.reserve(); last.Peer != id(0) || last.Limit != l.self.Offer.MemoryBytes {
		t.Errorf("the last try: %+v", last)
	}
}

// TestStarvedKind: after one action of a kind ran out of memory and came through with more, those of its kind get as much from the
// start, as far as a peer has it; those of another do not. It is forgotten when none has for long.
func TestStarvedKind(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	like := func(mnemonic string) func(*Work) {
		return func(w *Work) { w.Mnemonic, w.Platform.MemoryBytes = mnemonic, 50<<20 }
	}
	run := func(mnemonic string, bytes, limit int64) {
		t.Helper()
		l.submit(like(mnemonic))
		r := l.reserve()
		if r.MemoryBytes != bytes || r.Limit != limit {
			t.Errorf("%s gets %d MiB, limit %d", mnemonic, r.MemoryBytes>>20, r.Limit>>20)
		}
		l.Finished(l.now, r.Try, Sample{Duration: 1, MemoryBytes: 10 << 20})
	}
	l.submit(like("Link"))
	l.Starved(l.now, l.reserve().Try, 50<<20)
	if s := l.Finished(l.now, l.reserve().Try, Sample{Duration: 1, MemoryBytes: 200 << 20}); !s.Starved {
		t.Errorf("learned %+v", s)
	}
	for range maxSamples {
		run("Link", 240<<20, 240<<20)
		run("Compile", 50<<20, 0)
	}
	run("Link", 50<<20, 0)
}
