package castest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// writeAll writes data in pieces of step bytes.
func writeAll(t *testing.T, w *cas.Writer, data []byte, step int) {
	t.Helper()
	for at := 0; at < len(data); at += step {
		n, err := w.Write(data[at:min(at+step, len(data))])
		must(t, err)
		if want := int64(at + n); w.Offset() != want {
			t.Fatalf("offset is %d after %d bytes", w.Offset(), want)
		}
	}
}

func writerCommit(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for i, size := range sizes {
		b := Make(uint64(i), size)
		w, err := s.NewWriter(ctx, b.Digest)
		must(t, err)
		writeAll(t, w, b.Data, 40000)
		if s.Contains(b.Digest) {
			t.Fatalf("%d bytes are visible before commit", size)
		}
		must(t, w.Commit())
		w.Abort()
		wantError(t, w.Commit(), cas.ErrClosed)
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("write after commit succeeded")
		}
		wantContent(t, s, b)
	}
}

func writerVerifies(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for _, size := range []int{1000, 100 << 10} {
		b := Make(1, size)
		open := func() *cas.Writer {
			w, err := s.NewWriter(ctx, b.Digest)
			must(t, err)
			return w
		}
		short := open()
		writeAll(t, short, b.Data[:size-1], size)
		wantError(t, short.Commit(), cas.ErrCorrupt)
		long := open()
		writeAll(t, long, b.Data, size)
		_, err := long.Write([]byte("x"))
		wantError(t, err, cas.ErrCorrupt)
		wantError(t, long.Commit(), cas.ErrCorrupt)
		wrong := open()
		writeAll(t, wrong, bytes.Repeat([]byte("x"), size), size)
		wantError(t, wrong.Commit(), cas.ErrCorrupt)
		for _, w := range []*cas.Writer{short, long, wrong} {
			w.Abort()
		}
		if s.Contains(b.Digest) {
			t.Fatal("a writer that failed made the blob present")
		}
	}
	if st := s.Stat(); st.Reserved != 0 || st.Blobs != 0 || st.Bytes != 0 {
		t.Errorf("failed writers left %+v", st)
	}
}

func writerAbort(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for _, size := range []int{1000, 100 << 10} {
		b := Make(1, size)
		w, err := s.NewWriter(ctx, b.Digest)
		must(t, err)
		writeAll(t, w, b.Data, size)
		w.Abort()
		w.Abort()
		wantError(t, w.Commit(), cas.ErrClosed)
		if s.Contains(b.Digest) {
			t.Fatal("an aborted blob is present")
		}
	}
	if st := s.Stat(); st.Reserved != 0 || st.Bytes != 0 {
		t.Errorf("aborted writers left %+v", st)
	}
}

func twoWriters(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for i, size := range []int{1000, 100 << 10} {
		b := Make(uint64(i), size)
		var writers []*cas.Writer
		for range 3 {
			w, err := s.NewWriter(ctx, b.Digest)
			must(t, err)
			writers = append(writers, w)
		}
		for _, w := range writers {
			writeAll(t, w, b.Data, 30000)
		}
		var all sync.WaitGroup
		for _, w := range writers {
			all.Go(func() {
				if err := w.Commit(); err != nil {
					t.Errorf("commit: %v", err)
				}
			})
		}
		all.Wait()
		wantContent(t, s, b)
		if st := s.Stat(); st.Blobs != int64(i+1) || st.Reserved != 0 {
			t.Errorf("three writers left %+v", st)
		}
	}
}

func readerRanges(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for i, size := range sizes {
		b := Make(uint64(i), size)
		_, err := s.NewReader(ctx, b.Digest)
		wantError(t, err, cas.ErrNotFound)
		put(t, s, b)
		r, err := s.NewReader(ctx, b.Digest)
		must(t, err)
		if r.Size() != int64(size) {
			t.Errorf("size is %d, want %d", r.Size(), size)
		}
		got, err := io.ReadAll(io.NewSectionReader(r, int64(size/3), int64(size)))
		must(t, err)
		if !bytes.Equal(got, b.Data[size/3:]) {
			t.Errorf("%d bytes from %d on are not the content", size, size/3)
		}
		if n, err := r.ReadAt(make([]byte, 1), int64(size)); n != 0 || err != io.EOF {
			t.Errorf("read at the end gave %d, %v", n, err)
		}
		must(t, r.Close())
		must(t, r.Close())
		_, err = r.ReadAt(make([]byte, 1), 0)
		wantError(t, err, cas.ErrClosed)
	}
	if n := s.Stat().Pinned; n != 0 {
		t.Errorf("closed readers left %d pins", n)
	}
}

func materialize(t *testing.T, f fixture) {
	s, ctx, dir := f.store(cas.Options{}), context.Background(), t.TempDir()
	for i, size := range sizes {
		b := Make(uint64(i), size)
		path := filepath.Join(dir, fmt.Sprint(size))
		wantError(t, s.Materialize(ctx, b.Digest, path, false), cas.ErrNotFound)
		put(t, s, b)
		for name, mode := range map[string]os.FileMode{path: 0o444, path + "x": 0o555, path + "y": 0o555} {
			must(t, s.Materialize(ctx, b.Digest, name, mode == 0o555))
			got, err := os.ReadFile(name)
			must(t, err)
			info, err := os.Stat(name)
			must(t, err)
			if !bytes.Equal(got, b.Data) || info.Mode() != mode {
				t.Errorf("%d bytes became %d of mode %v, want %v", size, len(got), info.Mode(), mode)
			}
		}
		wantError(t, s.Materialize(ctx, b.Digest, path, false), os.ErrExist)
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o444 {
			t.Errorf("executable copy changed the plain one: %v, %v", info, err)
		}
	}
	if n := s.Stat().Pinned; n != 0 {
		t.Errorf("materializing left %d pins", n)
	}
}

func putFile(t *testing.T, f fixture) {
	s, ctx, dir := f.store(cas.Options{}), context.Background(), t.TempDir()
	for i, size := range append([]int{0}, sizes...) {
		for _, fn := range digest.Functions() {
			data := Content(uint64(i), size)
			path := filepath.Join(dir, fmt.Sprint(size, fn))
			must(t, os.WriteFile(path, data, 0o755))
			d, err := s.PutFile(ctx, fn, path)
			must(t, err)
			if d != fn.Of(data) {
				t.Errorf("%d bytes got digest %s", size, d)
			}
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
			wantContent(t, s, cas.Blob{Digest: d, Data: data})
			must(t, s.Materialize(ctx, d, path, false))
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o444 {
				t.Errorf("ingested file materializes as %v, %v", info, err)
			}
		}
	}
	if n := s.Stat().Reserved; n != 0 {
		t.Errorf("ingesting left %d bytes reserved", n)
	}
}

func putFileRefuses(t *testing.T, f fixture) {
	s, ctx, dir := f.store(cas.Options{MaxBlob: 1000, MaxBytes: 1 << 20}), context.Background(), t.TempDir()
	big := filepath.Join(dir, "big")
	must(t, os.WriteFile(big, make([]byte, 1001), 0o644))
	_, err := s.PutFile(ctx, digest.SHA256, big)
	wantError(t, err, cas.ErrTooLarge)
	for _, path := range []string{dir, filepath.Join(dir, "absent")} {
		if _, err := s.PutFile(ctx, digest.SHA256, path); err == nil {
			t.Errorf("%s was ingested", path)
		}
	}
}
