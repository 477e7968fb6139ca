package record

import (
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"time"
)

// benchKey makes keys that are spread as hashes are.
func benchKey(i int) (key Key) {
	x := uint64(i)
	for at := 0; at+8 <= KeySize; at += 8 {
		x = (x + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
		x ^= x >> 29
		binary.LittleEndian.PutUint64(key[at:], x)
	}
	return key
}

// BenchmarkOpenMillion opens a log of a million values and reports seconds and bytes of memory.
func BenchmarkOpenMillion(b *testing.B) {
	const entries = 1_000_000
	dir := b.TempDir()
	fillLog(b, dir, entries)
	if st, err := os.Stat(dir + "/journal"); err == nil {
		b.ReportMetric(float64(st.Size())/entries, "journal-B/entry")
	}
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		l, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/open")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/entries, "heap-B/entry")
		if l.Stat().Entries != entries {
			b.Fatalf("%d entries", l.Stat().Entries)
		}
		benchLookups(b, l, entries)
		start = time.Now()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/close")
	}
}

func fillLog(b *testing.B, dir string, entries int) {
	b.Helper()
	l, err := Open(dir, Options{SyncEvery: -1})
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 64)
	items := make([]Item, 1000)
	for i := 0; i < entries; i += len(items) {
		for j := range items {
			items[j] = Item{benchKey(i + j), value}
		}
		if err := l.Put(items); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchLookups looks 10,000 scattered keys up, first when they were never used and then again.
func benchLookups(b *testing.B, l *Log, entries int) {
	b.Helper()
	keys, infos := make([]Key, 10000), make([]Info, 10000)
	for i := range keys {
		keys[i] = benchKey(i * 7919 % entries)
	}
	for _, unit := range []string{"ms/10000-first", "ms/10000-again"} {
		start := time.Now()
		if err := l.Lookup(keys, infos); err != nil || !infos[9999].Found {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds()*1e3, unit)
	}
}
