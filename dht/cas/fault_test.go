package cas_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/castest"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string, o cas.Options) *cas.Store {
	t.Helper()
	s, err := cas.Open(dir, o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s *cas.Store, seed uint64, size int) cas.Blob {
	t.Helper()
	b := castest.Make(seed, size)
	must(t, s.Put(context.Background(), b.Digest, b.Data))
	return b
}

// blobFile is where the store keeps a large blob.
func blobFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Hex()[:2], "sha256-"+d.Hex())
}

// flip damages one byte of a file as a failing disk does: behind everybody's back.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	must(t, os.Chmod(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

func TestVerifyQuarantines(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, cas.Options{})
	small, large, doubled, good := put(t, s, 1, 500), put(t, s, 2, 100<<10), put(t, s, 3, 100<<10), put(t, s, 4, 100<<10)
	other := put(t, s, 5, 500)
	must(t, s.Materialize(ctx, doubled.Digest, filepath.Join(t.TempDir(), "x"), true))
	flip(t, filepath.Join(dir, "records", "segment-00000000"), 300)
	flip(t, blobFile(dir, large.Digest), 50<<10)
	flip(t, blobFile(dir, doubled.Digest)+"x", 1)
	report, err := s.Verify(ctx, cas.VerifyOptions{})
	must(t, err)
	if report.Blobs != 5 || len(report.Corrupt) != 3 {
		t.Errorf("got %+v", report)
	}
	for _, b := range []cas.Blob{small, large, doubled} {
		if s.Contains(b.Digest) {
			t.Errorf("damaged blob %s is present", b.Digest.Short())
		}
		must(t, s.Put(ctx, b.Digest, b.Data))
	}
	for _, b := range []cas.Blob{small, large, doubled, good, other} {
		got, err := s.Get(ctx, b.Digest)
		must(t, err)
		must(t, cas.Blob{Digest: b.Digest, Data: got}.Check())
	}
	if kept, err := os.ReadDir(filepath.Join(dir, "quarantine")); err != nil || len(kept) != 2 {
		t.Errorf("%d files in quarantine, %v", len(kept), err)
	}
	if n := s.Stat().Corrupt; n < 3 {
		t.Errorf("%d damaged blobs counted", n)
	}
}

// A large blob whose file somebody has written to is not found, nor linked, as soon as anybody asks for its bytes; one whose
// file was only touched is hashed once and is as good as before.
func TestChangedFilesAreNotFound(t *testing.T) {
	for name, read := range map[string]func(*cas.Store, digest.Digest) error{
		"get":    func(s *cas.Store, d digest.Digest) error { _, err := s.Get(t.Context(), d); return err },
		"stream": func(s *cas.Store, d digest.Digest) error { _, err := s.NewReader(t.Context(), d); return err },
		"link": func(s *cas.Store, d digest.Digest) error {
			return s.Materialize(t.Context(), d, filepath.Join(t.TempDir(), "x"), false)
		},
		"executable": func(s *cas.Store, d digest.Digest) error {
			return s.Materialize(t.Context(), d, filepath.Join(t.TempDir(), "x"), true)
		},
	} {
		dir := t.TempDir()
		s := open(t, dir, cas.Options{})
		changed, touched := put(t, s, 1, 100<<10), put(t, s, 2, 100<<10)
		flip(t, blobFile(dir, changed.Digest), 50<<10)
		must(t, os.Chtimes(blobFile(dir, touched.Digest), time.Time{}, time.Now()))
		if err := read(s, changed.Digest); !errors.Is(err, cas.ErrNotFound) || s.Contains(changed.Digest) || s.Stat().Corrupt != 1 {
			t.Errorf("%s of a changed blob: %v, %d found corrupt", name, err, s.Stat().Corrupt)
		}
		got, err := s.Get(t.Context(), touched.Digest)
		if err != nil || !bytes.Equal(got, touched.Data) {
			t.Errorf("a touched blob: %v", err)
		}
		if info, err := os.Stat(blobFile(dir, touched.Digest)); err != nil || !info.ModTime().Equal(tree.ModTime) {
			t.Errorf("a touched blob is not sealed again: %v, %v", info, err)
		}
		must(t, s.Put(t.Context(), changed.Digest, changed.Data))
		if _, err := s.Get(t.Context(), changed.Digest); err != nil {
			t.Errorf("stored anew: %v", err)
		}
	}
}

// An executable copy that was changed is not linked.
func TestChangedCopyIsNotFound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, cas.Options{})
	b := put(t, s, 1, 100<<10)
	must(t, s.Materialize(t.Context(), b.Digest, filepath.Join(t.TempDir(), "x"), true))
	flip(t, blobFile(dir, b.Digest)+"x", 1)
	if err := s.Materialize(t.Context(), b.Digest, filepath.Join(t.TempDir(), "x"), true); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a changed copy: %v", err)
	}
}

func TestDamagedReadsAreNotFound(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, cas.Options{})
	small, other := put(t, s, 1, 500), put(t, s, 2, 500)
	lost, cut := put(t, s, 3, 100<<10), put(t, s, 4, 100<<10)
	flip(t, filepath.Join(dir, "records", "segment-00000000"), 300)
	must(t, os.Remove(blobFile(dir, lost.Digest)))
	must(t, os.Chmod(blobFile(dir, cut.Digest), 0o600))
	must(t, os.Truncate(blobFile(dir, cut.Digest), 1000))
	ds := []digest.Digest{small.Digest, other.Digest, lost.Digest, cut.Digest}
	all, err := s.GetBatch(ctx, ds)
	must(t, err)
	if all[0] != nil || !bytes.Equal(all[1], other.Data) || all[2] != nil || all[3] != nil {
		t.Errorf("got %d, %d, %d, %d bytes", len(all[0]), len(all[1]), len(all[2]), len(all[3]))
	}
	missing, err := s.Missing(ctx, ds)
	must(t, err)
	if len(missing) != 3 || s.Removals() != 3 {
		t.Errorf("%d missing, %d removals", len(missing), s.Removals())
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, cas.Options{})
	var blobs []cas.Blob
	for i := range 50 {
		blobs = append(blobs, put(t, s, uint64(i), 1+i*2000))
	}
	before := s.Stat()
	must(t, s.Close())
	s = open(t, dir, cas.Options{})
	for _, b := range blobs {
		got, err := s.Get(ctx, b.Digest)
		must(t, err)
		must(t, cas.Blob{Digest: b.Digest, Data: got}.Check())
	}
	if after := s.Stat(); after.Bytes != before.Bytes || after.Blobs != before.Blobs {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestEvictionTakesTheExecutableCopy counts and removes the second file of a blob with the first.
func TestEvictionTakesTheExecutableCopy(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, cas.Options{MaxBytes: 2 << 20, MinFree: -1, Lease: -1})
	b := put(t, s, 1, 200<<10)
	path := filepath.Join(t.TempDir(), "tool")
	must(t, s.Materialize(ctx, b.Digest, path, true))
	if n := s.Stat().Bytes; n != 400<<10 {
		t.Errorf("a blob of 200 KiB with an executable copy counts %d", n)
	}
	for i := range 20 {
		put(t, s, uint64(100+i), 200<<10)
	}
	if _, err := os.Stat(blobFile(dir, b.Digest) + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy is left: %v", err)
	}
	got, err := os.ReadFile(path)
	must(t, err)
	must(t, cas.Blob{Digest: b.Digest, Data: got}.Check())
}

// TestReaderOutlivesRemoval reads on from a blob that was quarantined meanwhile.
func TestReaderOutlivesRemoval(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, cas.Options{})
	b := put(t, s, 1, 100<<10)
	r, err := s.NewReader(ctx, b.Digest)
	must(t, err)
	defer r.Close()
	must(t, os.Remove(blobFile(dir, b.Digest)))
	if _, err := s.Get(ctx, b.Digest); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	must(t, err)
	must(t, cas.Blob{Digest: b.Digest, Data: got}.Check())
}

func TestHardLinks(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, cas.Options{})
	large, small := castest.Make(1, 100<<10), put(t, s, 2, 100)
	given := filepath.Join(t.TempDir(), "output")
	must(t, os.WriteFile(given, large.Data, 0o777))
	if _, err := s.PutFile(ctx, digest.SHA256, given); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	same := func(a, b string) bool {
		x, err := os.Stat(a)
		must(t, err)
		y, err := os.Stat(b)
		must(t, err)
		return os.SameFile(x, y)
	}
	for _, name := range []string{"a", "b"} {
		must(t, s.Materialize(ctx, large.Digest, filepath.Join(out, name), false))
		must(t, s.Materialize(ctx, large.Digest, filepath.Join(out, name+"x"), true))
		must(t, s.Materialize(ctx, small.Digest, filepath.Join(out, name+"s"), false))
	}
	if !same(filepath.Join(out, "a"), filepath.Join(out, "b")) || !same(filepath.Join(out, "a"), given) {
		t.Error("a large blob was copied")
	}
	if !same(filepath.Join(out, "ax"), filepath.Join(out, "bx")) || same(filepath.Join(out, "a"), filepath.Join(out, "ax")) {
		t.Error("the executable copy is not made exactly once")
	}
	if same(filepath.Join(out, "as"), filepath.Join(out, "bs")) {
		t.Error("a small blob was linked")
	}
	linked := filepath.Join(t.TempDir(), "linked")
	data := castest.Content(9, 100<<10)
	must(t, os.WriteFile(linked, data, 0o644))
	must(t, os.Link(linked, linked+"2"))
	d, err := s.PutFile(ctx, digest.SHA256, linked)
	must(t, err)
	if same(linked, blobFile(dir, d)) {
		t.Error("a file that others can write through another name became the store's")
	}
}

// TestUnfinishedUploadIsGone leaves an upload open, as a crash would, and opens again.
func TestUnfinishedUploadIsGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, cas.Options{})
	b := castest.Make(1, 100<<10)
	w, err := s.NewWriter(context.Background(), b.Digest)
	must(t, err)
	_, err = w.Write(b.Data)
	must(t, err)
	must(t, s.Close())
	s = open(t, dir, cas.Options{})
	if left, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(left) != 0 || s.Contains(b.Digest) {
		t.Errorf("%d uploads left, %v", len(left), err)
	}
	if err := w.Commit(); err == nil {
		t.Error("a writer of a closed store committed")
	}
}

func TestVerifyPace(t *testing.T) {
	s := open(t, t.TempDir(), cas.Options{})
	put(t, s, 1, 200<<10)
	start := time.Now()
	_, err := s.Verify(context.Background(), cas.VerifyOptions{BytesPerSecond: 1 << 20})
	must(t, err)
	if took := time.Since(start); took < 150*time.Millisecond {
		t.Errorf("200 KiB at 1 MiB/s took %v", took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Verify(ctx, cas.VerifyOptions{BytesPerSecond: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
