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
	l.Failed(l.now, l.reserve().Try, OutOfMemory)
	l.Failed(l.now, l.reserve().Try, OutOfMemory)
	if e, ok := errors.AsType[*MemoryError](l.Decisions()[0].(*Fail).Err); !ok || e.Bytes != 48<<30 {
		t.Errorf("in the end: %v", e)
	}
}
