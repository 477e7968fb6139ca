package record

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestTornJournal cuts the journal at every byte of its last line, and into the one before.
func TestTornJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, Options{SyncEvery: -1, Files: calmFiles{}})
	for i := range 5 {
		put(t, l, i, 100)
	}
	for cut := range lineSize + 2 {
		left := abandon(t, dir)
		change(t, filepath.Join(left, "journal"), func(b []byte) []byte { return b[:len(b)-cut] })
		again := open(t, left, Options{SyncEvery: -1, Files: calmFiles{}})
		whole := 5 - (cut+lineSize-1)/lineSize
		for i := range 5 {
			if has(again, i) != (i < whole) {
				t.Fatalf("cut %d: value %d present: %v", cut, i, has(again, i))
			}
		}
		put(t, again, 9, 300)
		must(t, again.Close())
		again = open(t, left, Options{SyncEvery: -1, Files: calmFiles{}})
		for i := range whole {
			wantValue(t, again, i, 100)
		}
		wantValue(t, again, 9, 300)
		must(t, again.Close())
	}
}

// TestTornSegment cuts a segment at every byte of its last frame.
func TestTornSegment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, Options{SyncEvery: -1, Files: calmFiles{}})
	for i := range 3 {
		put(t, l, i, 100)
	}
	for cut := 1; cut <= int(frameSize(100)); cut++ {
		left := abandon(t, dir)
		change(t, segmentPath(left, 0), func(b []byte) []byte { return b[:len(b)-cut] })
		again := open(t, left, Options{SyncEvery: -1, Files: calmFiles{}})
		if has(again, 2) {
			t.Fatalf("cut %d: the torn value is present", cut)
		}
		put(t, again, 7, 200)
		for _, n := range []int{0, 1} {
			wantValue(t, again, n, 100)
		}
		must(t, again.Close())
		again = open(t, left, Options{SyncEvery: -1, Files: calmFiles{}})
		wantValue(t, again, 7, 200)
		must(t, again.Close())
	}
}

func TestDamagedJournalLineCostsOnlyItself(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SyncEvery: -1})
	for i := range 5 {
		put(t, l, i, 100)
	}
	left := abandon(t, dir)
	change(t, filepath.Join(left, "journal"), func(b []byte) []byte {
		b[4*lineSize+20] ^= 1 // after the header and the opened line: value 2
		return b
	})
	again := open(t, left, Options{})
	for i := range 5 {
		if has(again, i) != (i != 2) {
			t.Errorf("value %d present: %v", i, has(again, i))
		}
	}
	if n := again.Stat().Lost; n != 1 {
		t.Errorf("%d lost, want 1", n)
	}
}

// Whatever is gone or damaged when a log is opened is told; what only was not acknowledged is not.
func TestLostIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(dir string)
		lost   int64
	}{
		"nothing": {func(string) {}, 0},
		"half a line": {func(dir string) {
			change(t, filepath.Join(dir, "journal"), func(b []byte) []byte { return append(b, 1, 2) })
		}, 0},
		"no journal":       {func(dir string) { must(t, os.Remove(filepath.Join(dir, "journal"))) }, 1},
		"an empty journal": {func(dir string) { must(t, os.Truncate(filepath.Join(dir, "journal"), 0)) }, 1},
		"no segment":       {func(dir string) { must(t, os.Remove(segmentPath(dir, 0))) }, 3},
		"half a value":     {func(dir string) { change(t, segmentPath(dir, 0), func(b []byte) []byte { return b[:len(b)-1] }) }, 1},
		"a bad value": {func(dir string) {
			change(t, segmentPath(dir, 0), func(b []byte) []byte { b[frameHeader+50] ^= 4; return b })
		}, 1},
	} {
		dir := t.TempDir()
		l := open(t, dir, Options{SyncEvery: -1, Boot: boot(1)})
		for i := range 3 {
			put(t, l, i, 100)
		}
		left := abandon(t, dir)
		c.damage(left)
		if n := open(t, left, Options{Boot: boot(2)}).Stat().Lost; n != c.lost {
			t.Errorf("%s: %d lost, want %d", name, n, c.lost)
		}
		must(t, open(t, abandon(t, left), Options{Boot: boot(2)}).Close())
	}
}

// A log that keeps what it has refuses what a full disk has no room for.
func TestKeeps(t *testing.T) {
	disk := &smallDisk{limit: 1 << 20, sizes: map[string]int64{}}
	l := open(t, t.TempDir(), Options{SegmentBytes: 128 << 10, Files: disk, SyncEvery: -1, Keeps: true})
	var err error
	n := 0
	for ; err == nil; n++ {
		err = l.Put([]Item{{benchKey(n), testValue(n, 5000)}})
	}
	wantError(t, err, ErrFull)
	for i := range n - 1 {
		wantValue(t, l, i, 5000)
	}
	disk.setLimit(4 << 20) // a clean end needs room for a new journal
}

func TestForeignJournalIsRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "journal"), bytes.Repeat([]byte("not ours"), 100), 0o600))
	_, err := Open(dir, Options{})
	wantError(t, err, ErrCorrupt)
}

func TestDamagedValueIsRemoved(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SyncEvery: -1})
	for i := range 3 {
		put(t, l, i, 100)
	}
	change(t, segmentPath(dir, 0), func(b []byte) []byte {
		b[frameSize(100)+frameHeader+50] ^= 4
		return b
	})
	values, err := l.Get([]Key{benchKey(0), benchKey(1), benchKey(2)})
	wantError(t, err, ErrCorrupt)
	if values[0].Data == nil || values[1].Found || values[2].Data == nil {
		t.Errorf("got %v", values)
	}
	if has(l, 1) || l.Stat().Corrupt != 1 || l.Removals() != 1 {
		t.Error("the damaged value is still there or was not counted")
	}
}

// TestPowerLoss opens what is left after another boot: what was synced is trusted, what was not is
// read, and goes when it is damaged.
func TestPowerLoss(t *testing.T) {
	dir, o := t.TempDir(), newOwner()
	l := open(t, dir, Options{SyncEvery: -1, Owner: o, Boot: boot(1)})
	put(t, l, 0, 100)
	adopt(t, l, o, 10, 5000)
	must(t, l.Sync())
	put(t, l, 1, 100)
	put(t, l, 2, 100)
	adopt(t, l, o, 11, 5000)
	adopt(t, l, o, 12, 5000)
	left := abandon(t, dir)
	must(t, l.Close())
	o.damaged[benchKey(11)] = true
	o.checked, o.removed = nil, nil
	change(t, segmentPath(left, 0), func(b []byte) []byte {
		clear(b[frameSize(100) : 2*frameSize(100)])
		return b
	})
	same := open(t, abandon(t, left), Options{SyncEvery: -1, Owner: o, Boot: boot(1)})
	if len(o.checked) != 0 || !has(same, 1) {
		t.Error("values were read although the machine never stopped")
	}
	other := open(t, left, Options{SyncEvery: -1, Owner: o, Boot: boot(2)})
	for n, want := range map[int]bool{0: true, 1: false, 2: true, 10: true, 11: false, 12: true} {
		if has(other, n) != want {
			t.Errorf("value %d present: %v", n, has(other, n))
		}
	}
	if slices.Contains(o.checked, benchKey(10)) || !slices.Contains(o.removed, benchKey(11)) {
		t.Errorf("checked %d, removed %d", len(o.checked), len(o.removed))
	}
	wantValue(t, other, 2, 100)
}

// TestPowerLossAfterRewrite checks that a rewritten journal still knows what was not synced.
func TestPowerLossAfterRewrite(t *testing.T) {
	dir, o := t.TempDir(), newOwner()
	l := open(t, dir, Options{SyncEvery: -1, Owner: o, Boot: boot(1)})
	adopt(t, l, o, 1, 100)
	l.upkeep.Lock()
	must(t, l.checkpoint())
	l.upkeep.Unlock()
	adopt(t, l, o, 2, 100)
	left := abandon(t, dir)
	o.checked = nil
	open(t, left, Options{SyncEvery: -1, Owner: o, Boot: boot(2)})
	if !slices.Equal(o.checked, []Key{benchKey(2)}) {
		t.Errorf("%d values were checked, want the one after the rewrite", len(o.checked))
	}
}

// TestPowerLossAfterRewriteDuringPut rewrites the journal while a value comes: the old journal's
// mark tells positions that mean nothing in the new one.
func TestPowerLossAfterRewriteDuringPut(t *testing.T) {
	dir, o := t.TempDir(), newOwner()
	l := open(t, dir, Options{SyncEvery: -1, Owner: o, Boot: boot(1)})
	for range 50 {
		put(t, l, 7, 10)
	}
	adopt(t, l, o, 1, 100)
	o.during = func() { adopt(t, l, o, 2, 100) }
	l.upkeep.Lock()
	must(t, l.checkpoint())
	l.upkeep.Unlock()
	left := abandon(t, dir)
	o.checked = nil
	open(t, left, Options{SyncEvery: -1, Owner: o, Boot: boot(2)})
	if !slices.Equal(o.checked, []Key{benchKey(2)}) {
		t.Errorf("%d values were checked, want the one that came meanwhile", len(o.checked))
	}
}

// TestCompactionSyncsCopiesFirst checks that copies are durable before the originals go.
func TestCompactionSyncsCopiesFirst(t *testing.T) {
	files := &orderedFiles{t: t, dirty: map[string]bool{}}
	l := open(t, t.TempDir(), Options{SegmentBytes: 64 << 10, SyncEvery: -1, Files: files})
	for i := range 200 {
		put(t, l, i, 1000)
	}
	for i := range 200 {
		if i%3 != 0 {
			_, err := l.Delete(benchKey(i))
			must(t, err)
		}
	}
	l.upkeep.Lock()
	must(t, l.compact(0))
	l.upkeep.Unlock()
	if l.Stat().Segments > 5 {
		t.Errorf("%+v", l.Stat())
	}
}

// TestCrashAroundExternal abandons the log at each step of an external value's way.
func TestCrashAroundExternal(t *testing.T) {
	dir, o := t.TempDir(), newOwner()
	l := open(t, dir, Options{SyncEvery: -1, Owner: o})
	key := benchKey(1)
	must(t, l.Reserve(100))
	var during string
	must(t, l.Adopt(key, 100, func() error {
		during = abandon(t, dir)
		return o.place(key, 100)()
	}))
	open(t, during, Options{SyncEvery: -1, Owner: o})
	if o.has(key) {
		t.Error("a file that came without its entry is left")
	}
	must(t, o.place(key, 100)())
	o.fail = errors.New("directory is busy")
	_, err := l.Delete(key)
	must(t, err)
	left := abandon(t, dir)
	o.fail = nil
	open(t, left, Options{SyncEvery: -1, Owner: o})
	if o.has(key) || has(l, 1) {
		t.Error("a file whose entry is gone is left")
	}
}

func TestAdoptThatFailsLeavesNothing(t *testing.T) {
	o := newOwner()
	l := open(t, t.TempDir(), Options{Owner: o})
	must(t, l.Reserve(100))
	failure := errors.New("rename refused")
	wantError(t, l.Adopt(benchKey(1), 100, func() error { return failure }), failure)
	if st := l.Stat(); st.Reserved != 0 || st.Entries != 0 || len(o.removed) != 1 {
		t.Errorf("left %+v, %d removed", st, len(o.removed))
	}
}

// TestDiskFull fills a disk for real reasons, not by the byte limit: every acknowledged value stays
// readable, eviction makes room, and nothing is lost over a restart.
func TestDiskFull(t *testing.T) {
	clock := newHand()
	disk := &smallDisk{limit: 1 << 20, sizes: map[string]int64{}}
	o := Options{SegmentBytes: 128 << 10, Files: disk, SyncEvery: -1, Lease: time.Minute, Clock: clock.Now}
	dir := t.TempDir()
	l, err := Open(dir, o)
	must(t, err)
	n := 0
	for ; err == nil; n++ {
		err = l.Put([]Item{{benchKey(n), testValue(n, 5000)}})
	}
	wantError(t, err, ErrFull)
	n-- // this one was refused
	for i := range n {
		wantValue(t, l, i, 5000)
	}
	if has(l, n) {
		t.Error("the refused value is present")
	}
	clock.advance(time.Hour)
	for i := range 100 {
		put(t, l, 1000+i, 5000)
	}
	wantValue(t, l, 1099, 5000)
	if has(l, 0) || !has(l, 1050) {
		t.Error("eviction on a full disk did not take the oldest")
	}
	disk.setLimit(4 << 20) // a clean end needs room for a new journal
	must(t, l.Close())
	l = open(t, dir, o)
	wantValue(t, l, 1099, 5000)
}

func TestLockNamesTheHolder(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	_, err := Open(dir, Options{})
	wantError(t, err, ErrLocked)
	if !strings.Contains(err.Error(), "process ") {
		t.Errorf("message %q names no process", err)
	}
	must(t, l.Close())
	open(t, dir, Options{})
}

func TestSyncInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner()
		l, err := Open(t.TempDir(), Options{Owner: o, SyncEvery: 5 * time.Second})
		must(t, err)
		adopt(t, l, o, 1, 100)
		synctest.Wait()
		if len(o.syncedKeys()) != 0 {
			t.Error("synced at once")
		}
		time.Sleep(5*time.Second + time.Millisecond)
		synctest.Wait()
		if !slices.Equal(o.syncedKeys(), []Key{benchKey(1)}) {
			t.Errorf("%d values synced after 5 s", len(o.syncedKeys()))
		}
		journal := l.Stat().Journal
		time.Sleep(time.Hour)
		synctest.Wait()
		if l.Stat().Journal != journal {
			t.Error("an idle log writes")
		}
		must(t, l.Close())
	})
}

func TestClosed(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	must(t, l.Close())
	wantError(t, l.Put([]Item{{}}), ErrClosed)
	wantError(t, l.Lookup(make([]Key, 1), make([]Info, 1)), ErrClosed)
	wantError(t, l.Reserve(1), ErrClosed)
	wantError(t, l.Sync(), ErrClosed)
	for _, call := range []func() error{
		func() error { _, err := l.Get(make([]Key, 1)); return err },
		func() error { _, err := l.Delete(Key{}); return err },
		func() error { _, _, err := l.Entries(0, 1); return err },
		func() error { _, err := l.Read(Key{}); return err },
		func() error { _, err := l.Collect(); return err },
	} {
		wantError(t, call(), ErrClosed)
	}
}
