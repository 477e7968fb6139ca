package record

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeOwner keeps external values as names in a map.
type fakeOwner struct {
	mu      sync.Mutex // guards everything
	files   map[Key]int64
	damaged map[Key]bool
	checked []Key
	synced  []Key
	removed []Key
	fail    error
	during  func() // called by the next Sync
}

func newOwner() *fakeOwner { return &fakeOwner{files: map[Key]int64{}, damaged: map[Key]bool{}} }

func (o *fakeOwner) Remove(key Key) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	delete(o.files, key)
	o.removed = append(o.removed, key)
	return nil
}

func (o *fakeOwner) Check(key Key, size int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.checked = append(o.checked, key)
	return o.files[key] == size && !o.damaged[key]
}

func (o *fakeOwner) Sync(keys []Key) error {
	if during := o.during; during != nil {
		o.during = nil
		during()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.synced = append(o.synced, keys...)
	return o.fail
}

func (o *fakeOwner) place(key Key, size int64) func() error {
	return func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.files[key] = size
		return nil
	}
}

func (o *fakeOwner) syncedKeys() []Key {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.synced
}

func (o *fakeOwner) has(key Key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.files[key]
	return ok
}

// calmFiles never sync: tests that open and close a hundred times need not wait for the disk.
type calmFiles struct{ osFiles }

func (calmFiles) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return calmFile{f}, nil
}

type calmFile struct{ *os.File }

func (calmFile) Sync() error { return nil }

// orderedFiles complain when a segment is removed while another has bytes that were not synced.
type orderedFiles struct {
	osFiles
	t     *testing.T
	mu    sync.Mutex // guards dirty
	dirty map[string]bool
}

func (o *orderedFiles) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return &orderedFile{f, o}, nil
}

func (o *orderedFiles) mark(path string, dirty bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dirty[path] = dirty
}

func (o *orderedFiles) Remove(path string) error {
	o.mark(path, false)
	o.mu.Lock()
	defer o.mu.Unlock()
	for other, dirty := range o.dirty {
		if _, ok := segmentID(filepath.Base(path)); ok && dirty {
			o.t.Errorf("%s was removed before %s was synced", filepath.Base(path), filepath.Base(other))
		}
	}
	return os.Remove(path)
}

type orderedFile struct {
	*os.File
	files *orderedFiles
}

func (f *orderedFile) WriteAt(p []byte, off int64) (int, error) {
	f.files.mark(f.Name(), true)
	return f.File.WriteAt(p, off)
}

func (f *orderedFile) Sync() error {
	f.files.mark(f.Name(), false)
	return f.File.Sync()
}

// smallDisk is a disk of limit bytes: writes that would grow its files beyond are cut off.
type smallDisk struct {
	mu    sync.Mutex // guards everything
	limit int64
	sizes map[string]int64
}

func (d *smallDisk) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes[path] = info.Size()
	return &smallFile{f, d, path}, nil
}

func (d *smallDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes[to] = d.sizes[from]
	delete(d.sizes, from)
	return os.Rename(from, to)
}

func (d *smallDisk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sizes, path)
	return os.Remove(path)
}

func (d *smallDisk) setLimit(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = n
}

type smallFile struct {
	*os.File
	disk *smallDisk
	path string
}

// Fd hides the descriptor's allocator: this disk promises nothing.
func (f *smallFile) Fd() {}

func (f *smallFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	var used int64
	for path, n := range f.disk.sizes {
		if filepath.Base(path) != "journal" { // its space was promised before the disk filled
			used += n
		}
	}
	size := f.disk.sizes[f.path]
	grow := max(0, off+int64(len(p))-size)
	if room := f.disk.limit - used; grow > room && filepath.Base(f.path) != "journal" {
		n, _ := f.File.WriteAt(p[:max(0, int64(len(p))-(grow-max(room, 0)))], off)
		f.disk.sizes[f.path] = max(size, off+int64(n))
		return n, syscall.ENOSPC
	}
	f.disk.sizes[f.path] = size + grow
	return f.File.WriteAt(p, off)
}

func (f *smallFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.sizes[f.path] = size
	return f.File.Truncate(size)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func open(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	must(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// testValue makes a value that belongs to key n.
func testValue(n, size int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%08d", n)), size/8+1)[:size]
}

func put(t testing.TB, l *Log, n, size int) {
	t.Helper()
	must(t, l.Put([]Item{{benchKey(n), testValue(n, size)}}))
}

func adopt(t testing.TB, l *Log, o *fakeOwner, n int, size int64) {
	t.Helper()
	must(t, l.Reserve(size))
	must(t, l.Adopt(benchKey(n), size, o.place(benchKey(n), size)))
}

func has(l *Log, n int) bool { return l.Peek(benchKey(n)).Found }

// wantValue fails unless key n has the value of size bytes that belongs to it.
func wantValue(t testing.TB, l *Log, n, size int) {
	t.Helper()
	values, err := l.Get([]Key{benchKey(n)})
	must(t, err)
	if !bytes.Equal(values[0].Data, testValue(n, size)) || !values[0].Found {
		t.Fatalf("value %d: got %d bytes, found %v", n, len(values[0].Data), values[0].Found)
	}
}

// abandon copies the files of a log as a killed process would leave them.
func abandon(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, e.Name()), data, 0o600))
	}
	return to
}

// freeze calls f while nothing changes the log's files.
func freeze(l *Log, f func()) {
	l.upkeep.Lock()
	defer l.upkeep.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// change rewrites a file of a log.
func change(t testing.TB, path string, edit func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, edit(data), 0o600))
}

// hand is a clock that moves only when told.
type hand struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func newHand() *hand { return &hand{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (h *hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hand) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func boot(n byte) func() [16]byte { return func() [16]byte { return [16]byte{n} } }
