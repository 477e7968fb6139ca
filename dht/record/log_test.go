package record

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestAgainstModel does random things to a log of small segments and to a map, opening the log
// again now and then, cleanly or as a killed process leaves it, and compares.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			m := &model{t: t, dir: t.TempDir(), owner: newOwner(), random: rand.New(rand.NewPCG(seed, 9)), sizes: map[int]int{}}
			m.open()
			for range 1500 {
				m.step()
			}
			m.compare()
			must(t, m.log.Close())
		})
	}
}

type model struct {
	t      *testing.T
	dir    string
	owner  *fakeOwner
	log    *Log
	random *rand.Rand
	sizes  map[int]int // by key; external ones from 1000 on
}

func (m *model) open() {
	l, err := Open(m.dir, Options{SegmentBytes: 64 << 10, Owner: m.owner, SyncEvery: time.Millisecond, Files: calmFiles{}})
	must(m.t, err)
	m.log = l
}

func (m *model) step() {
	n := m.random.IntN(200)
	switch m.random.IntN(20) {
	default:
		items := make([]Item, m.random.IntN(5)+1)
		for i := range items {
			m.sizes[n+i] = m.random.IntN(2000)
			items[i] = Item{benchKey(n + i), testValue(n+i, m.sizes[n+i])}
		}
		must(m.t, m.log.Put(items))
	case 0, 1, 2, 3:
		_, err := m.log.Delete(benchKey(n))
		must(m.t, err)
		delete(m.sizes, n)
	case 4, 5:
		size := m.random.IntN(1 << 20)
		adopt(m.t, m.log, m.owner, 1000+n, int64(size))
		m.sizes[1000+n] = size
	case 6:
		_, err := m.log.Delete(benchKey(1000 + n))
		must(m.t, err)
		delete(m.sizes, 1000+n)
	case 7:
		if m.random.IntN(8) == 0 {
			_, err := m.log.Collect()
			must(m.t, err)
		}
	case 8:
		if m.random.IntN(8) == 0 {
			must(m.t, m.log.Close())
			m.open()
			m.compare()
		}
	case 9:
		if m.random.IntN(8) == 0 {
			var left string
			freeze(m.log, func() { left = abandon(m.t, m.dir) })
			must(m.t, m.log.Close())
			m.dir = left
			m.open()
			m.compare()
		}
	}
}

func (m *model) compare() {
	m.t.Helper()
	count := int64(0)
	for n := range 1300 {
		size, want := m.sizes[n]
		info := m.log.Peek(benchKey(n))
		if info.Found != want || (want && info.Size != int64(size)) {
			m.t.Fatalf("key %d: %+v, want %v of %d bytes", n, info, want, size)
		}
		if want {
			count++
			if n < 1000 {
				wantValue(m.t, m.log, n, size)
			} else if !m.owner.has(benchKey(n)) {
				m.t.Fatalf("file of key %d is gone", n)
			}
		} else if m.owner.has(benchKey(n)) {
			m.t.Fatalf("file of key %d is left", n)
		}
	}
	var live, external int64
	for n, size := range m.sizes {
		if n < 1000 {
			live += frameSize(int64(size))
		} else {
			external += int64(size)
		}
	}
	if st := m.log.Stat(); st.Entries != count || st.Live != live+external || st.Dead < 0 || st.Reserved != 0 {
		m.t.Fatalf("counts %+v, want %d entries, %d bytes live", st, count, live+external)
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	key := benchKey(1)
	for i := range 10 {
		must(t, l.Put([]Item{{key, []byte(fmt.Sprint("value ", i))}}))
	}
	must(t, l.Close())
	l = open(t, dir, Options{})
	values, err := l.Get([]Key{key})
	must(t, err)
	if string(values[0].Data) != "value 9" || l.Stat().Entries != 1 {
		t.Errorf("got %q", values[0].Data)
	}
}

func TestOrderSurvivesClose(t *testing.T) {
	dir, o := t.TempDir(), Options{MaxBytes: 1 << 20, SegmentBytes: 64 << 10}
	l := open(t, dir, o)
	for i := range 14 {
		put(t, l, i, 60000)
	}
	for _, i := range []int{2, 0, 1} {
		wantValue(t, l, i, 60000)
	}
	must(t, l.Close())
	l = open(t, dir, o)
	for i := range 8 {
		put(t, l, 100+i, 60000)
	}
	for i, want := range []bool{true, true, true, false, false, false} {
		if has(l, i) != want {
			t.Errorf("value %d present: %v, want %v", i, has(l, i), want)
		}
	}
}

func TestLimitHolds(t *testing.T) {
	o := newOwner()
	l := open(t, t.TempDir(), Options{MaxBytes: 2 << 20, Owner: o})
	for i := range 3000 {
		put(t, l, i, i%3000)
		if i%10 == 0 {
			adopt(t, l, o, 10_000+i, 50_000)
		}
		if st := l.Stat(); st.Live+st.Dead > 2<<20+64<<10 {
			t.Fatalf("after %d: %d live and %d dead of %d", i, st.Live, st.Dead, 2<<20)
		}
	}
	if st := l.Stat(); st.Live < 1<<20 {
		t.Errorf("only %d of %d bytes are used", st.Live, 2<<20)
	}
	wantError(t, l.Put([]Item{{benchKey(1), make([]byte, 1<<20)}}), ErrTooLarge)
	wantError(t, l.Reserve(2<<20+1), ErrFull)
}

func TestLeaseAndClock(t *testing.T) {
	clock := newHand()
	l := open(t, t.TempDir(), Options{MaxBytes: 1 << 20, Lease: time.Minute, Clock: clock.Now})
	for i := range 15 {
		put(t, l, i, 60000)
		clock.advance(-time.Hour) // steps back make no time pass
	}
	item := []Item{{benchKey(99), testValue(99, 60000)}, {benchKey(98), testValue(98, 60000)}, {benchKey(97), testValue(97, 60000)}}
	wantError(t, l.Put(item), ErrFull)
	clock.advance(30 * time.Second)
	wantError(t, l.Put(item), ErrFull)
	must(t, l.Lookup([]Key{benchKey(3)}, make([]Info, 1)))
	clock.advance(40 * time.Second)
	must(t, l.Put(item))
	if !has(l, 3) || has(l, 0) {
		t.Error("the lease of 3 was renewed, that of 0 was not")
	}
}

func TestMinimumOfFreeDisk(t *testing.T) {
	o, free := newOwner(), int64(10<<20)
	l := open(t, t.TempDir(), Options{MinFree: 1 << 20, Owner: o, Space: func(string) (int64, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		left := free
		for _, size := range o.files {
			left -= size
		}
		return left, nil
	}})
	for i := range 40 {
		adopt(t, l, o, i, 500_000)
	}
	if n := l.Stat().Live; n > 9<<20 || n < 8<<20 {
		t.Errorf("%d bytes live on a disk that leaves 9 MiB", n)
	}
	o.mu.Lock()
	free = 0
	o.mu.Unlock()
	wantError(t, l.Reserve(500_000), ErrFull)
	if l.Stat().Live != 0 {
		t.Error("others filled the disk and the log kept its space")
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 64 << 10, SyncEvery: -1})
	for i := range 300 {
		put(t, l, i, 1000)
	}
	segments := l.Stat().Segments
	for i := range 300 {
		if i%4 != 0 {
			_, err := l.Delete(benchKey(i))
			must(t, err)
		}
	}
	freed, err := l.Collect()
	must(t, err)
	st := l.Stat()
	if st.Dead > 64<<10 || st.Segments >= segments {
		t.Errorf("freed %d, left %+v", freed, st)
	}
	for range 2 {
		for i := 0; i < 300; i += 4 {
			wantValue(t, l, i, 1000)
		}
		must(t, l.Close())
		l = open(t, dir, Options{SegmentBytes: 64 << 10})
	}
}

func TestJournalIsRewritten(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SyncEvery: time.Millisecond, SegmentBytes: 1 << 20})
	items := make([]Item, 1000)
	for i := range items {
		items[i] = Item{benchKey(i), testValue(i, 10)}
	}
	for range 100 {
		must(t, l.Put(items))
	}
	for deadline := time.Now().Add(20 * time.Second); l.Stat().Journal > (bloat+4000)*lineSize; {
		if time.Now().After(deadline) {
			t.Fatalf("journal has %d bytes for 1000 entries", l.Stat().Journal)
		}
		must(t, l.Put(items[:1]))
	}
	var left string
	freeze(l, func() { left = abandon(t, dir) })
	l = open(t, left, Options{})
	for i := range 1000 {
		wantValue(t, l, i, 10)
	}
}
