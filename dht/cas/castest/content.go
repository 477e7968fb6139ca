package castest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Content makes size bytes that differ by seed.
func Content(seed uint64, size int) []byte {
	data := make([]byte, size)
	stream := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	stream.Read(data)
	return data
}

// Make makes a blob of Content.
func Make(seed uint64, size int) cas.Blob {
	data := Content(seed, size)
	return cas.Blob{Digest: digest.SHA256.Of(data), Data: data}
}

// sizes are around every limit a store might have.
var sizes = []int{1, 7, 8, 9, 100, 1 << 10, 16 << 10, 32<<10 - 1, 32 << 10, 32<<10 + 1, 200 << 10, 1<<20 + 3}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s Store, b cas.Blob) {
	t.Helper()
	must(t, s.Put(context.Background(), b.Digest, b.Data))
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func wantContent(t *testing.T, s Store, b cas.Blob) {
	t.Helper()
	got, err := s.Get(context.Background(), b.Digest)
	must(t, err)
	if !bytes.Equal(got, b.Data) {
		t.Fatalf("blob %s: got %d other bytes", b.Digest.Short(), len(got))
	}
}

func emptyBlob(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for _, fn := range digest.Functions() {
		d := fn.Empty()
		absent, err := s.Missing(ctx, []digest.Digest{d})
		must(t, err)
		if len(absent) != 0 || !s.Contains(d) {
			t.Errorf("%s: empty blob is missing", fn)
		}
		all, err := s.GetBatch(ctx, []digest.Digest{d})
		must(t, err)
		if all[0] == nil || len(all[0]) != 0 {
			t.Errorf("%s: got %v, want an empty slice that is not nil", fn, all[0])
		}
		r, err := s.NewReader(ctx, d)
		must(t, err)
		if n, err := r.ReadAt(make([]byte, 1), 0); n != 0 || err != io.EOF {
			t.Errorf("%s: read gave %d, %v", fn, n, err)
		}
		must(t, r.Close())
		w, err := s.NewWriter(ctx, d)
		must(t, err)
		must(t, w.Commit())
		must(t, s.Put(ctx, d, nil))
		pin, absent := s.Pin([]digest.Digest{d})
		if len(absent) != 0 {
			t.Errorf("%s: empty blob cannot be pinned", fn)
		}
		pin.Release()
		path := filepath.Join(t.TempDir(), "empty")
		must(t, s.Materialize(ctx, d, path, true))
		if info, err := os.Stat(path); err != nil || info.Size() != 0 || info.Mode().Perm() != 0o555 {
			t.Errorf("%s: materialized as %v, %v", fn, info, err)
		}
	}
}

func putGet(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	var all []cas.Blob
	for i, size := range sizes {
		b := Make(uint64(i), size)
		_, err := s.Get(ctx, b.Digest)
		wantError(t, err, cas.ErrNotFound)
		put(t, s, b)
		put(t, s, b)
		wantContent(t, s, b)
		all = append(all, b)
	}
	for _, b := range all {
		wantContent(t, s, b)
	}
	if n := s.Stat().Blobs; n != int64(len(all)) {
		t.Errorf("store counts %d blobs, want %d", n, len(all))
	}
}

func wrongContent(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for _, size := range []int{100, 100 << 10} {
		b := Make(1, size)
		bad := bytes.Clone(b.Data)
		bad[size/2] ^= 1
		wantError(t, s.Put(ctx, b.Digest, bad), cas.ErrCorrupt)
		wantError(t, s.Put(ctx, b.Digest, b.Data[:size-1]), cas.ErrCorrupt)
		wantError(t, s.Put(ctx, b.Digest.Function().Empty(), b.Data), cas.ErrCorrupt)
		if s.Contains(b.Digest) {
			t.Fatal("refused blob is present")
		}
	}
}

func wrongSize(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for _, size := range []int{100, 100 << 10} {
		b := Make(1, size)
		put(t, s, b)
		for _, claimed := range []int64{0, int64(size) - 1, int64(size) + 1} {
			other := digest.New(digest.SHA256, b.Digest.Hash(), claimed)
			absent, err := s.Missing(ctx, []digest.Digest{other})
			must(t, err)
			if len(absent) != 1 || s.Contains(other) {
				t.Errorf("hash with size %d instead of %d is found", claimed, size)
			}
			_, err = s.Get(ctx, other)
			wantError(t, err, cas.ErrNotFound)
			_, err = s.NewReader(ctx, other)
			wantError(t, err, cas.ErrNotFound)
			pin, absent := s.Pin([]digest.Digest{other})
			if len(absent) != 1 {
				t.Errorf("hash with size %d instead of %d is pinned", claimed, size)
			}
			pin.Release()
			wantError(t, s.Materialize(ctx, other, filepath.Join(t.TempDir(), "f"), false), cas.ErrNotFound)
		}
		wantContent(t, s, b)
	}
}

func functions(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	data := Content(1, 5000)
	must(t, s.Put(ctx, digest.BLAKE3.Of(data), data))
	if s.Contains(digest.SHA256.Of(data)) {
		t.Error("a BLAKE3 upload made the SHA256 blob present")
	}
	crossed := digest.New(digest.SHA256, digest.BLAKE3.Of(data).Hash(), 5000)
	if s.Contains(crossed) {
		t.Error("a BLAKE3 hash is found as SHA256")
	}
	wantError(t, s.Put(ctx, crossed, data), cas.ErrCorrupt)
	wantContent(t, s, cas.Blob{Digest: digest.BLAKE3.Of(data), Data: data})
}

func batch(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	var blobs []cas.Blob
	for i := range 40 {
		blobs = append(blobs, Make(uint64(i), sizes[i%len(sizes)]))
	}
	blobs = append(blobs, blobs[3], cas.Blob{Digest: digest.SHA256.Empty()})
	blobs[7].Data = []byte("something else")
	errs := s.PutBatch(ctx, blobs)
	if len(errs) != len(blobs) {
		t.Fatalf("got %d errors for %d blobs", len(errs), len(blobs))
	}
	for i, err := range errs {
		if (err != nil) != (i == 7) {
			t.Errorf("item %d: %v", i, err)
		}
	}
	wantError(t, errs[7], cas.ErrCorrupt)
	ds := make([]digest.Digest, len(blobs))
	for i, b := range blobs {
		ds[i] = b.Digest
	}
	all, err := s.GetBatch(ctx, ds)
	must(t, err)
	for i, data := range all {
		if i == 7 {
			if data != nil {
				t.Error("refused item is present")
			}
			continue
		}
		if data == nil || !bytes.Equal(data, blobs[i].Data) {
			t.Errorf("item %d is not what was put", i)
		}
	}
	if errs := s.PutBatch(ctx, blobs[:5]); errs != nil {
		t.Errorf("all fine should be nil, got %v", errs)
	}
	if errs := s.PutBatch(ctx, nil); errs != nil {
		t.Errorf("empty batch gave %v", errs)
	}
}

func missing(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	var ds, want []digest.Digest
	var blobs []cas.Blob
	for i := range 3000 {
		b := Make(uint64(i), 20)
		ds = append(ds, b.Digest)
		if i%3 == 0 {
			blobs = append(blobs, b)
		} else {
			want = append(want, b.Digest)
		}
	}
	if errs := s.PutBatch(ctx, blobs); errs != nil {
		t.Fatal(errs)
	}
	got, err := s.Missing(ctx, ds)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("got %d missing, want %d in order", len(got), len(want))
	}
}

func buffers(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	for _, size := range []int{500, 100 << 10} {
		b := Make(1, size)
		data := bytes.Clone(b.Data)
		must(t, s.Put(ctx, b.Digest, data))
		clear(data)
		wantContent(t, s, b)
		got, err := s.Get(ctx, b.Digest)
		must(t, err)
		clear(got)
		wantContent(t, s, b)
	}
}

func cancelled(t *testing.T, f fixture) {
	s := f.store(cas.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := Make(1, 10)
	_, err := s.Missing(ctx, []digest.Digest{b.Digest})
	wantError(t, err, context.Canceled)
	wantError(t, s.Put(ctx, b.Digest, b.Data), context.Canceled)
	if s.Contains(b.Digest) {
		t.Error("a cancelled put stored")
	}
}
