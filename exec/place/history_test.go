package place

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// TestHistoryOutlivesTheCore: what the results of one core taught, given to another history, makes the same estimates, and tells
// speeds by the same.
func TestHistoryOutlivesTheCore(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	second := NewHistory()
	run := func(mnemonic string, s Sample) {
		l.submit(func(w *Work) { w.Mnemonic = mnemonic })
		r := l.reserve()
		l.Granted(l.now, r.Try)
		if learned := l.Finished(l.now, r.Try, s); learned != (Sample{}) {
			second.Add(mnemonic, learned)
		}
	}
	for i := range 3 * maxSamples {
		run("CppCompile", Sample{Duration: time.Duration(i) * time.Second, Cores: 2, MemoryBytes: 1 << 30, InputBytes: 1 << 20, OutputBytes: int64(i) << 10})
	}
	run("Genrule", Sample{}) // it ended without having run
	l.peer(0, busy)
	l.peer(1, func(p *Peer) { p.Speed = 2 })
	for range 30 {
		run("CppCompile", Sample{Duration: time.Hour, OutputBytes: 7})
	}
	k := l.history.kinds["CppCompile"]
	k.all.estimate, k.own.estimate = Estimate{}, Estimate{} // they are made anew, as the other's will be
	want := l.Estimate("CppCompile")
	if want.Samples != maxSamples || want.Median < 80*time.Second || want.OutputBytes == 0 || want.InputBytes != 1<<20 {
		t.Errorf("learned %+v", want)
	}
	if got := second.Of("CppCompile"); got != want {
		t.Errorf("restored %+v, want %+v", got, want)
	}
	if got, want, all := second.reference("CppCompile"), l.history.reference("CppCompile"), want.Median; got != want || got == all {
		t.Errorf("speeds are told by %s, before by %s; the median of all is %s", got, want, all)
	}
	if got := second.Of("Genrule"); got != (Estimate{}) {
		t.Errorf("of what never ran: %+v", got)
	}
}

// TestHistoryIsBounded: whatever a file that changed on disk says, estimates are sane, and neither mnemonics nor samples pile up.
func TestHistoryIsBounded(t *testing.T) {
	h := NewHistory()
	for _, s := range []Sample{
		{Duration: math.MinInt64, Cores: math.NaN(), MemoryBytes: math.MinInt64, InputBytes: -1, OutputBytes: -1},
		{Duration: math.MaxInt64, Cores: math.Inf(1), MemoryBytes: math.MaxInt64, InputBytes: math.MaxInt64, OutputBytes: math.MaxInt64},
	} {
		for range 2 * maxSamples {
			h.Add("absurd", s)
		}
		e := h.Of("absurd")
		if e.Median < 0 || e.P95 < e.Median || !(e.Cores >= 0 && e.Cores <= maxSlots) || e.MemoryBytes < 0 || e.MemoryBytes > 2*maxMemory || e.InputBytes < 0 || e.OutputBytes < 0 {
			t.Errorf("%+v makes %+v", s, e)
		}
	}
	for i := range 2 * maxKinds {
		h.Of("absurd")
		h.Add(fmt.Sprint(i), Sample{Duration: 1})
	}
	if n := len(h.kinds); n != maxKinds || h.Of("absurd") == (Estimate{}) {
		t.Errorf("%d mnemonics are kept, of the one in use %+v", n, h.Of("absurd"))
	}
	if n := len(h.kinds["absurd"].all.samples); n != maxSamples {
		t.Errorf("%d samples are kept", n)
	}
}

// TestSpeedIsToldByThisMachine: what peers took, whose speeds are but estimated, does not move what their speeds are told by,
// once this machine has made enough of a kind itself.
func TestSpeedIsToldByThisMachine(t *testing.T) {
	h := NewHistory()
	for range 2 * enough {
		h.Add("C", Sample{Duration: time.Second})
	}
	if got := h.reference("C"); got != time.Second {
		t.Errorf("%s, while this machine has made none", got)
	}
	for range enough {
		h.Add("C", Sample{Duration: 3 * time.Second, Own: true})
	}
	for range 2 * maxSamples {
		h.Add("C", Sample{Duration: time.Minute})
	}
	if got, all := h.reference("C"), h.Of("C").Median; got != 3*time.Second || all != time.Minute {
		t.Errorf("%s, and %s of all", got, all)
	}
}

// TestSpeedSettles: a peer's speed is not told by one action, and is found after some.
func TestSpeedSettles(t *testing.T) {
	l := newLab(t, Options{})
	l.peer(0)
	l.peer(1)
	for range enough {
		l.history.Add("", Sample{Duration: time.Second, Own: true})
	}
	n := l.peers[id(1)]
	l.learn(n, &item{}, Sample{Duration: 4 * time.Second})
	if n.speed < 0.7 || n.speed >= 1 {
		t.Errorf("speed %.2f after one action that took four times as long", n.speed)
	}
	for range 40 {
		l.learn(n, &item{}, Sample{Duration: 4 * time.Second})
	}
	if n.speed < 0.25 || n.speed > 0.3 {
		t.Errorf("speed %.2f after 41 such actions", n.speed)
	}
}
