package castest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// The tests here fill a store of 4 MiB with blobs of 256 KiB: 14 fit whatever the framing, 17 do not.
const (
	limit  = 4 << 20
	piece  = 256 << 10
	enough = 14
)

func (f fixture) small() Store {
	return f.store(cas.Options{MaxBytes: limit, MinFree: -1, Lease: time.Minute})
}

// fill puts n blobs, a second apart, the first one first.
func (f fixture) fill(s Store, n int) []cas.Blob {
	f.t.Helper()
	var all []cas.Blob
	for i := range n {
		b := Make(uint64(1000+i), piece)
		put(f.t, s, b)
		f.clock.Advance(time.Second)
		all = append(all, b)
	}
	return all
}

func evictLeastRecent(t *testing.T, f fixture) {
	s, ctx := f.small(), context.Background()
	all := f.fill(s, enough)
	f.clock.Advance(10 * time.Minute)
	// Each way of use saves its blob: 0 by a question, 1 by reading, 2 by writing again, 3 by a pin.
	must(t, discard(s.Missing(ctx, []digest.Digest{all[0].Digest})))
	must(t, discard(s.Get(ctx, all[1].Digest)))
	put(t, s, all[2])
	pin, _ := s.Pin([]digest.Digest{all[3].Digest})
	pin.Release()
	if !s.Contains(all[4].Digest) {
		t.Fatal("a blob left without need")
	}
	for i := range 6 {
		put(t, s, Make(uint64(2000+i), piece))
	}
	for i, b := range all[:4] {
		if !s.Contains(b.Digest) {
			t.Errorf("recently used blob %d went", i)
		}
	}
	if s.Contains(all[4].Digest) {
		t.Error("the least recently used blob stayed")
	}
	if !s.Contains(all[enough-1].Digest) {
		t.Error("more than needed went")
	}
	if st := s.Stat(); st.Bytes+st.Dead > limit || st.Evicted == 0 {
		t.Errorf("over the limit: %+v", st)
	}
}

func discard[T any](_ T, err error) error { return err }

func leases(t *testing.T, f fixture) {
	s, ctx := f.small(), context.Background()
	all := f.fill(s, enough)
	var err error
	for i := 0; i < 5 && err == nil; i++ {
		b := Make(uint64(3000+i), piece)
		err = s.Put(ctx, b.Digest, b.Data)
	}
	wantError(t, err, cas.ErrFull)
	for _, b := range all {
		wantContent(t, s, b)
	}
	f.clock.Advance(40 * time.Second)
	ds := []digest.Digest{all[0].Digest, all[1].Digest}
	must(t, discard(s.Missing(ctx, ds)))
	f.clock.Advance(40 * time.Second)
	for i := range 8 {
		put(t, s, Make(uint64(4000+i), piece))
	}
	for i, d := range ds {
		if !s.Contains(d) {
			t.Errorf("blob %d went 40 s after it was asked for, under a lease of 60 s", i)
		}
	}
}

func pins(t *testing.T, f fixture) {
	s, ctx := f.small(), context.Background()
	all := f.fill(s, enough)
	var ds []digest.Digest
	for _, b := range all {
		ds = append(ds, b.Digest)
	}
	absent := Make(9, 10).Digest
	pin, missing := s.Pin(append(ds[:4:4], absent))
	if len(missing) != 1 || missing[0] != absent {
		t.Fatalf("got %d missing", len(missing))
	}
	again, _ := s.Pin(ds[:1])
	f.clock.Advance(time.Hour)
	for i := range 30 {
		put(t, s, Make(uint64(5000+i), piece))
		f.clock.Advance(time.Hour)
	}
	for i := range 4 {
		wantContent(t, s, all[i])
	}
	pin.Release()
	pin.Release()
	f.clock.Advance(time.Hour)
	for i := range 30 {
		put(t, s, Make(uint64(6000+i), piece))
		f.clock.Advance(time.Hour)
	}
	if !s.Contains(ds[0]) {
		t.Error("a blob with a pin left went")
	}
	if s.Contains(ds[1]) {
		t.Error("a released blob stayed for ever")
	}
	again.Release()
	if n := s.Stat().Pinned; n != 0 {
		t.Errorf("%d pins are left", n)
	}
	everything, _ := s.Pin(ds[:1])
	everything.Release()
	big := Make(7, limit+1)
	if err := s.Put(ctx, big.Digest, big.Data); err == nil {
		t.Error("a blob larger than the store was taken")
	}
}

func readersHold(t *testing.T, f fixture) {
	s, ctx := f.small(), context.Background()
	small, large := Make(1, 500), Make(2, piece)
	put(t, s, small)
	put(t, s, large)
	for _, b := range []cas.Blob{small, large} {
		r, err := s.NewReader(ctx, b.Digest)
		must(t, err)
		defer r.Close()
	}
	r, err := s.NewReader(ctx, large.Digest)
	must(t, err)
	f.clock.Advance(time.Hour)
	for i := range 30 {
		put(t, s, Make(uint64(5000+i), piece))
		f.clock.Advance(time.Hour)
	}
	wantContent(t, s, small)
	wantContent(t, s, large)
	if _, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size())); err != nil {
		t.Error(err)
	}
	must(t, r.Close())
}

func reservations(t *testing.T, f fixture) {
	s, ctx := f.small(), context.Background()
	large := Make(1, limit*5/8)
	first, err := s.NewWriter(ctx, large.Digest)
	must(t, err)
	other := Make(2, limit*5/8)
	_, err = s.NewWriter(ctx, other.Digest)
	wantError(t, err, cas.ErrFull)
	if n := s.Stat().Reserved; n != large.Digest.Size() {
		t.Errorf("%d bytes are reserved, want %d", n, large.Digest.Size())
	}
	first.Abort()
	second, err := s.NewWriter(ctx, other.Digest)
	must(t, err)
	writeAll(t, second, other.Data, 1<<20)
	must(t, second.Commit())
	if st := s.Stat(); st.Reserved != 0 || st.Bytes < other.Digest.Size() {
		t.Errorf("after commit: %+v", st)
	}
}

func tooLarge(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{MaxBytes: limit, MaxBlob: 1000}), context.Background()
	put(t, s, Make(1, 1000))
	b := Make(2, 1001)
	wantError(t, s.Put(ctx, b.Digest, b.Data), cas.ErrTooLarge)
	_, err := s.NewWriter(ctx, b.Digest)
	wantError(t, err, cas.ErrTooLarge)
}

func clockSteps(t *testing.T, f fixture) {
	s, ctx := f.small(), context.Background()
	all := f.fill(s, enough)
	f.clock.Advance(10 * 365 * 24 * time.Hour)
	must(t, discard(s.Missing(ctx, []digest.Digest{all[0].Digest})))
	if n := s.Stat().Blobs; n != enough {
		t.Fatalf("a jump forward left %d of %d blobs", n, enough)
	}
	put(t, s, Make(1, piece))
	put(t, s, Make(2, piece))
	if n := s.Stat().Blobs; n < enough-2 {
		t.Fatalf("a jump forward and two blobs left %d of %d", n, enough)
	}
}

func removals(t *testing.T, f fixture) {
	s := f.small()
	f.fill(s, enough)
	if n := s.Removals(); n != 0 {
		t.Fatalf("%d removals before any", n)
	}
	f.clock.Advance(time.Hour)
	before := s.Stat().Blobs
	for i := range 10 {
		put(t, s, Make(uint64(7000+i), piece))
	}
	gone := before + 10 - s.Stat().Blobs
	if gone <= 0 || s.Removals() != uint64(gone) {
		t.Errorf("%d blobs left, %d removals", gone, s.Removals())
	}
}

func closed(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{}), context.Background()
	b := Make(1, 100)
	put(t, s, b)
	must(t, s.Close())
	must(t, s.Close())
	wantError(t, s.Put(ctx, b.Digest, b.Data), cas.ErrClosed)
	_, err := s.Get(ctx, b.Digest)
	wantError(t, err, cas.ErrClosed)
	_, err = s.Missing(ctx, []digest.Digest{b.Digest})
	wantError(t, err, cas.ErrClosed)
	_, err = s.NewReader(ctx, b.Digest)
	wantError(t, err, cas.ErrClosed)
	for _, size := range []int{10, 100 << 10} {
		_, err = s.NewWriter(ctx, Make(2, size).Digest)
		wantError(t, err, cas.ErrClosed)
	}
}

func verifyGood(t *testing.T, f fixture) {
	s := f.store(cas.Options{})
	var bytes int64
	for i, size := range sizes {
		put(t, s, Make(uint64(i), size))
		bytes += int64(size)
	}
	report, err := s.Verify(context.Background(), cas.VerifyOptions{})
	must(t, err)
	if report.Blobs != int64(len(sizes)) || report.Bytes != bytes || len(report.Corrupt) != 0 {
		t.Errorf("got %+v, want %d blobs of %d bytes", report, len(sizes), bytes)
	}
}

func collect(t *testing.T, f fixture) {
	s := f.small()
	all := f.fill(s, 5)
	f.clock.Advance(time.Hour)
	if freed, err := s.Collect(context.Background()); err != nil || freed != 0 {
		t.Errorf("collect freed %d, %v", freed, err)
	}
	for _, b := range all {
		wantContent(t, s, b)
	}
}

// concurrent mixes everything on a store too small for it: every answer must be right or one of
// the errors a caller knows.
func concurrent(t *testing.T, f fixture) {
	s, ctx := f.store(cas.Options{MaxBytes: limit, MinFree: -1, Lease: -1}), context.Background()
	blobs := make([]cas.Blob, 60)
	for i := range blobs {
		blobs[i] = Make(uint64(i), []int{300, 20 << 10, 150 << 10}[i%3])
	}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 150 {
				b := blobs[(i*7+g*13)%len(blobs)]
				if err := oneOf(ctx, s, b, i+g); err != nil {
					t.Errorf("%s: %v", b.Digest.Short(), err)
				}
			}
		})
	}
	all.Wait()
	if st := s.Stat(); st.Reserved != 0 || st.Pinned != 0 {
		t.Errorf("left behind: %+v", st)
	}
	report, err := s.Verify(ctx, cas.VerifyOptions{})
	if err != nil || len(report.Corrupt) != 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// oneOf does one thing with a blob.
func oneOf(ctx context.Context, s Store, b cas.Blob, which int) error {
	switch which % 4 {
	case 0:
		if err := s.Put(ctx, b.Digest, b.Data); !errors.Is(err, cas.ErrFull) {
			return err
		}
	case 1:
		data, err := s.Get(ctx, b.Digest)
		if errors.Is(err, cas.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return cas.Blob{Digest: b.Digest, Data: data}.Check()
	case 2:
		r, err := s.NewReader(ctx, b.Digest)
		if errors.Is(err, cas.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
		if err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
		return cas.Blob{Digest: b.Digest, Data: data}.Check()
	case 3:
		pin, missing := s.Pin([]digest.Digest{b.Digest})
		defer pin.Release()
		if len(missing) == 0 && !s.Contains(b.Digest) {
			return errors.New("pinned blob left")
		}
	}
	return nil
}
