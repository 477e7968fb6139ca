package asset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// artifact is what BuildStream pushes: a small blob that refers to logs and to directories.
func artifact(t testing.TB, b *blobs) (Asset, map[string]digest.Digest) {
	shared := b.directory(t, []string{"shared file"})
	files := b.directory(t, []string{"file"}, shared)
	tests := b.directory(t, []string{"test"}, shared)
	return Asset{
			Kind: Blob, URIs: []string{"urn:strong", "urn:weak"}, Digest: b.store(t, "artifact"),
			Blobs: []digest.Digest{b.store(t, "log")}, Directories: []digest.Digest{files, tests},
		}, map[string]digest.Digest{
			"content": b.fn.Of([]byte("artifact")), "log": b.fn.Of([]byte("log")), "directory": files, "subdirectory": shared,
			"file": b.fn.Of([]byte("file")), "shared file": b.fn.Of([]byte("shared file")),
		}
}

func TestPushedIsFetched(t *testing.T) {
	clock := newClock()
	b := newBlobs(cas.Options{MaxBytes: 8 << 10, Lease: time.Minute, Clock: clock.Now})
	dir := t.TempDir()
	x := open(t, dir, b, Options{Clock: clock.Now})
	a, parts := artifact(t, b)
	push(t, x, a)
	source := Asset{Kind: Directory, URIs: []string{"urn:source"}, Digest: b.directory(t, []string{"main.c"})}
	push(t, x, source)

	fetch := func(when string) {
		t.Helper()
		for _, uri := range a.URIs {
			got, found, err := x.Fetch(t.Context(), queryFor("urn:unknown", uri))
			if err != nil || found != uri || got.Digest != a.Digest || !slices.Equal(got.Directories, a.Directories) {
				t.Errorf("%s: %s: %+v from %s, %v", when, uri, got, found, err)
			}
		}
		got, _, err := x.Fetch(t.Context(), Query{Kind: Directory, URIs: source.URIs})
		if err != nil || got.Digest != source.Digest {
			t.Errorf("%s: source: %+v, %v", when, got, err)
		}
	}
	// pressure fills the store with newer content several times over, long after all leases.
	pressure := func() {
		for i := range 40 {
			clock.advance(10 * time.Minute)
			b.store(t, fmt.Sprintf("%1000d", i))
		}
	}
	fetch("at once")
	pressure()
	fetch("under pressure")
	x = reopen(t, x, dir, b, Options{Clock: clock.Now})
	pressure()
	fetch("after a restart and pressure")
	if b.Stat().Evicted == 0 {
		t.Error("nothing was evicted")
	}
	for role, d := range parts {
		if !b.Contains(d) {
			t.Errorf("%s is gone", role)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if n := b.Stat().Pinned; n != 0 {
		t.Errorf("%d blobs pinned after Close", n)
	}
	if _, _, err := x.Fetch(t.Context(), queryFor("urn:strong")); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := x.Push(t.Context(), a); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// Without any part of its content an asset is not found, now or after a restart, and is forgotten.
func TestIncompleteIsNotFound(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b := newBlobs(cas.Options{})
		_, parts := artifact(t, b)
		for role, d := range parts {
			dir := t.TempDir()
			x := open(t, dir, b, Options{})
			a, _ := artifact(t, b)
			push(t, x, a)
			b.Lose(d)
			if restart {
				x = reopen(t, x, dir, b, Options{})
			}
			if got, _, err := x.Fetch(t.Context(), queryFor(a.URIs...)); !errors.Is(err, ErrNotFound) {
				t.Errorf("without the %s (restart %v): %+v, %v", role, restart, got, err)
			}
			if st := x.Stat(); st.Names != 0 || st.Held != 0 {
				t.Errorf("without the %s (restart %v): %+v", role, restart, st)
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.Stat().Pinned; n != 0 {
			t.Errorf("%d blobs pinned after all", n)
		}
	}
}

func TestPushTellsEverythingAbsent(t *testing.T) {
	b := newBlobs(cas.Options{})
	x := open(t, t.TempDir(), b, Options{})
	a, parts := artifact(t, b)
	for _, role := range []string{"content", "log", "shared file"} {
		b.Lose(parts[role])
	}
	nowhere := digest.SHA256.Of([]byte("nowhere"))
	a.Directories = append(a.Directories, nowhere, nowhere)
	err := x.Push(t.Context(), a)
	var missing *tree.MissingError
	if !errors.As(err, &missing) {
		t.Fatal(err)
	}
	want := []digest.Digest{parts["content"], parts["log"], parts["shared file"], nowhere}
	if len(missing.Digests) != len(want) {
		t.Errorf("missing %v", missing.Digests)
	}
	for _, d := range want {
		if !slices.Contains(missing.Digests, d) {
			t.Errorf("%s is not told", d)
		}
	}
	if st := x.Stat(); st.Names != 0 || st.Held != 0 || b.Stat().Pinned != 0 {
		t.Errorf("%+v, %d pinned", st, b.Stat().Pinned)
	}
}

func TestNamesAreDistinguished(t *testing.T) {
	b := newBlobs(cas.Options{})
	x := open(t, t.TempDir(), b, Options{})
	a := blobAsset(b.store(t, "x"), "urn:x")
	a.Qualifiers = []Qualifier{{"vcs.branch", "main"}, {"resource_type", "text"}}
	push(t, x, a)
	good := Query{Kind: Blob, URIs: a.URIs, Qualifiers: []Qualifier{{"resource_type", "text"}, {"vcs.branch", "main"}}}
	if _, _, err := x.Fetch(t.Context(), good); err != nil {
		t.Errorf("qualifiers in another order: %v", err)
	}
	for name, change := range map[string]func(*Query){
		"kind":              func(q *Query) { q.Kind = Directory },
		"function":          func(q *Query) { q.Function = digest.BLAKE3 },
		"URI":               func(q *Query) { q.URIs = []string{"urn:y"} },
		"no URI":            func(q *Query) { q.URIs = nil },
		"fewer qualifiers":  func(q *Query) { q.Qualifiers = q.Qualifiers[1:] },
		"qualifier's value": func(q *Query) { q.Qualifiers[0].Value = "binary" },
		"joined qualifiers": func(q *Query) { q.Qualifiers = []Qualifier{{"resource_type", "textvcs.branchmain"}} },
	} {
		q := good
		q.Qualifiers = slices.Clone(q.Qualifiers)
		change(&q)
		if _, _, err := x.Fetch(t.Context(), q); !errors.Is(err, ErrNotFound) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestPushReplaces(t *testing.T) {
	b := newBlobs(cas.Options{})
	dir := t.TempDir()
	x := open(t, dir, b, Options{})
	first, second := b.store(t, "first"), b.store(t, "second")
	push(t, x, blobAsset(first, "urn:a", "urn:b"))
	push(t, x, blobAsset(second, "urn:b", "urn:b"))
	for range 2 {
		for uri, want := range map[string]digest.Digest{"urn:a": first, "urn:b": second} {
			if a, _, err := x.Fetch(t.Context(), queryFor(uri)); err != nil || a.Digest != want {
				t.Errorf("%s: %+v, %v", uri, a, err)
			}
		}
		if st := x.Stat(); st.Names != 2 || st.Held != first.Size()+second.Size() {
			t.Errorf("%+v", st)
		}
		x = reopen(t, x, dir, b, Options{})
	}
}

func TestTimes(t *testing.T) {
	b, clock := newBlobs(cas.Options{}), newClock()
	x := open(t, t.TempDir(), b, Options{Clock: clock.Now})
	begun := clock.Now()
	a := blobAsset(b.store(t, "x"), "urn:x")
	a.Expires = begun.Add(time.Hour)
	push(t, x, a)
	for _, c := range []struct {
		name   string
		oldest time.Time
		found  bool
	}{
		{"any age", time.Time{}, true},
		{"as old as it is", begun, true},
		{"younger than it is", begun.Add(1), false},
	} {
		q := queryFor("urn:x")
		q.Oldest = c.oldest
		if _, _, err := x.Fetch(t.Context(), q); c.found != (err == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	clock.advance(time.Hour - 1)
	if got, _, err := x.Fetch(t.Context(), queryFor("urn:x")); err != nil || !got.Expires.Equal(a.Expires) {
		t.Errorf("just before the end: %+v, %v", got, err)
	}
	clock.advance(1)
	if _, _, err := x.Fetch(t.Context(), queryFor("urn:x")); !errors.Is(err, ErrNotFound) {
		t.Errorf("expired: %v", err)
	}
	if st := x.Stat(); st.Names != 0 || st.Expired != 1 || b.Stat().Pinned != 0 || x.log.Stat().Entries != 0 {
		t.Errorf("expired: %+v, %d pinned", st, b.Stat().Pinned)
	}
}

func TestKeeperSweeps(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBlobs(cas.Options{})
		x, err := Open(dir, b, Options{SweepEvery: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			a := blobAsset(b.store(t, fmt.Sprint(i)), fmt.Sprint("urn:", i))
			a.Expires = time.Now().Add(time.Duration(i) * 90 * time.Second)
			push(t, x, a)
		}
		time.Sleep(2*time.Minute + time.Second)
		if st := x.Stat(); st.Names != 1 || st.Expired != 2 || b.Stat().Pinned != 1 {
			t.Errorf("%+v, %d pinned", st, b.Stat().Pinned)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}

// After a restart the keeper pins everything without being asked.
func TestKeeperRestores(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBlobs(cas.Options{})
		for i := range 2 {
			x, err := Open(dir, b, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				a, _ := artifact(t, b)
				push(t, x, a)
			}
			synctest.Wait()
			if n := b.Stat().Pinned; n != 8 { // two blobs, three directories, three files
				t.Errorf("round %d: %d pinned", i, n)
			}
			if st := x.Stat(); st.Hits != 0 {
				t.Errorf("round %d: %+v", i, st)
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestLimits(t *testing.T) {
	b := newBlobs(cas.Options{})
	for name, o := range map[string]Options{
		"names":   {MaxNames: 3},
		"bytes":   {MaxBytes: 3 * 100},
		"records": {MaxRecords: 3 * 110},
	} {
		dir := t.TempDir()
		clock := newClock()
		o.Clock = clock.Now
		x := open(t, dir, b, o)
		for i := range 3 {
			clock.advance(time.Second)
			push(t, x, blobAsset(b.store(t, fmt.Sprintf("%100d", i)), fmt.Sprint("urn:", i)))
		}
		if st := x.Stat(); st.Names != 3 {
			t.Errorf("%s: below the limit: %+v", name, st)
		}
		if _, _, err := x.Fetch(t.Context(), queryFor("urn:0")); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Second)
		push(t, x, blobAsset(b.store(t, fmt.Sprintf("%100d", 3)), "urn:3"))
		for i, found := range []bool{true, false, true, true} { // 1 was used least recently
			if _, _, err := x.Fetch(t.Context(), queryFor(fmt.Sprint("urn:", i))); found != (err == nil) {
				t.Errorf("%s: asset %d: %v", name, i, err)
			}
		}
		if st := x.Stat(); st.PushedOut != 1 || st.Held != 300 || b.Stat().Pinned != 3 || x.log.Stat().Entries != 3 {
			t.Errorf("%s: %+v, %d pinned", name, st, b.Stat().Pinned)
		}
		// A stricter limit after a restart lets the oldest pushes go.
		o.MaxNames, o.MaxBytes, o.MaxRecords = min(o.MaxNames, 2), o.MaxBytes*2/3, o.MaxRecords*2/3
		x = reopen(t, x, dir, b, o)
		for i, found := range []bool{false, false, true, true} {
			if _, _, err := x.Fetch(t.Context(), queryFor(fmt.Sprint("urn:", i))); found != (err == nil) {
				t.Errorf("%s: asset %d after a restart: %v", name, i, err)
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	b := newBlobs(cas.Options{})
	x := open(t, t.TempDir(), b, Options{MaxBytes: 10})
	push(t, x, blobAsset(b.store(t, "0123456789"), "urn:fits"))
	if err := x.Push(t.Context(), blobAsset(b.store(t, "0123456789a"), "urn:large")); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, _, err := x.Fetch(t.Context(), queryFor("urn:fits")); err != nil {
		t.Errorf("the one before: %v", err)
	}
}

func TestPushRefuses(t *testing.T) {
	b := newBlobs(cas.Options{})
	x := open(t, t.TempDir(), b, Options{})
	d := b.store(t, "x")
	for name, a := range map[string]Asset{
		"no kind":                        {URIs: []string{"urn:x"}, Digest: d},
		"no URI":                         {Kind: Blob, Digest: d},
		"empty URI":                      blobAsset(d, ""),
		"long URI":                       blobAsset(d, strings.Repeat("u", MaxURI+1)),
		"many URIs":                      blobAsset(d, make([]string, MaxURIs+1)...),
		"no content":                     blobAsset(digest.Digest{}, "urn:x"),
		"many references":                {Kind: Blob, URIs: []string{"urn:x"}, Digest: d, Blobs: make([]digest.Digest, MaxReferences+1)},
		"another function":               {Kind: Blob, URIs: []string{"urn:x"}, Digest: d, Blobs: []digest.Digest{digest.BLAKE3.Empty()}},
		"URI not UTF-8":                  blobAsset(d, "\xff"),
		"huge qualifier":                 {Kind: Blob, URIs: []string{"urn:x"}, Digest: d, Qualifiers: []Qualifier{{"n", strings.Repeat("v", maxEncoded)}}},
		"directory that is no Directory": {Kind: Directory, URIs: []string{"urn:x"}, Digest: b.store(t, "\xff")},
	} {
		if err := x.Push(t.Context(), a); !errors.Is(err, ErrInvalid) && !errors.Is(err, tree.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := x.Stat(); st.Names != 0 || b.Stat().Pinned != 0 {
		t.Errorf("%+v, %d pinned", st, b.Stat().Pinned)
	}
}

func TestStoreFailureIsNoMiss(t *testing.T) {
	b := newBlobs(cas.Options{})
	x := open(t, t.TempDir(), b, Options{})
	a, _ := artifact(t, b)
	push(t, x, a)
	other := b.store(t, "other")
	b.Lose(other) // something left the store: the next Fetch has to look
	broken := errors.New("disk on fire")
	b.failWith(broken)
	if _, _, err := x.Fetch(t.Context(), queryFor(a.URIs...)); !errors.Is(err, broken) || errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := x.Push(t.Context(), a); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	b.failWith(nil)
	if _, _, err := x.Fetch(t.Context(), queryFor(a.URIs...)); err != nil {
		t.Errorf("the disk is well again: %v", err)
	}
	reads := b.reads()
	if _, _, err := x.Fetch(t.Context(), queryFor(a.URIs...)); err != nil || b.reads() != reads {
		t.Errorf("nothing left the store, yet it was read again (%v)", err)
	}
}

// Two assets that share a directory: it stays pinned until the second goes.
func TestSharedDirectoriesArePinnedOnce(t *testing.T) {
	b := newBlobs(cas.Options{})
	x := open(t, t.TempDir(), b, Options{})
	shared := b.directory(t, []string{"a", "b"})
	roots := []digest.Digest{b.directory(t, []string{"c"}, shared), b.directory(t, []string{"d"}, shared, shared)}
	total := shared.Size() + roots[0].Size() + roots[1].Size() + 4
	for i, root := range roots {
		push(t, x, Asset{Kind: Directory, URIs: []string{fmt.Sprint("urn:", i)}, Digest: root})
	}
	if st := x.Stat(); st.Held != total || b.Stat().Pinned != 7 {
		t.Errorf("%+v, want %d bytes held; %d pinned", st, total, b.Stat().Pinned)
	}
	for i, left := range []int64{5, 0} { // the second root, d, shared, a, b
		x.mu.Lock()
		place := x.names[key(Directory, digest.SHA256, fmt.Sprint("urn:", i), nil)]
		err := x.forget(place)
		x.mu.Unlock()
		if err != nil || b.Stat().Pinned != left {
			t.Errorf("%d pinned, want %d, %v", b.Stat().Pinned, left, err)
		}
	}
	if st := x.Stat(); st.Held != 0 || len(x.holds.directories) != 0 {
		t.Errorf("%+v", st)
	}
}

func TestUnreadableRecordsAreForgotten(t *testing.T) {
	b := newBlobs(cas.Options{})
	dir := t.TempDir()
	x := open(t, dir, b, Options{})
	push(t, x, blobAsset(b.store(t, "x"), "urn:x"))
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := record.Open(dir, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, value := range [][]byte{{}, {version}, make([]byte, 100)} {
		if err := log.Put([]record.Item{{Key: record.Key{byte(i)}, Value: value}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, dir, b, Options{})
	if _, _, err := x.Fetch(t.Context(), queryFor("urn:x")); err != nil {
		t.Error(err)
	}
	if n := x.log.Stat().Entries; n != 1 {
		t.Errorf("%d records left", n)
	}
	if _, err := Open(dir, b, Options{}); !errors.Is(err, record.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	b := newBlobs(cas.Options{})
	x := open(t, t.TempDir(), b, Options{MaxNames: 5})
	root := b.directory(t, []string{"a"}, b.directory(t, []string{"b"}))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				uri := fmt.Sprint("urn:", (i+w)%10)
				if err := x.Push(context.Background(), Asset{Kind: Directory, URIs: []string{uri}, Digest: root}); err != nil {
					t.Error(err)
				}
				if _, _, err := x.Fetch(context.Background(), Query{Kind: Directory, URIs: []string{uri}}); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
				b.Lose(b.store(t, fmt.Sprint(i, w)))
			}
		})
	}
	wg.Wait()
	if st := x.Stat(); st.Names != 5 || x.holds.directories[root].users != 5 {
		t.Errorf("%+v, %d users", st, x.holds.directories[root].users)
	}
	if err := x.Close(); err != nil || b.Stat().Pinned != 0 {
		t.Errorf("%v, %d pinned", err, b.Stat().Pinned)
	}
}

func FuzzDecode(f *testing.F) {
	b := newBlobs(cas.Options{})
	a, _ := artifact(f, b)
	a.Qualifiers, a.Expires, a.Pushed = []Qualifier{{"n", "v"}}, newClock().Now(), newClock().Now()
	value, err := encode(&a)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add([]byte{version, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, value []byte) {
		a, err := decode(value)
		if err != nil {
			if !errors.Is(err, errUnreadable) {
				t.Fatalf("%v is not errUnreadable", err)
			}
			return
		}
		again, err := encode(a)
		if err != nil {
			return // too long when written canonically
		}
		back, err := decode(again)
		if err != nil || back.Digest != a.Digest || !slices.Equal(back.URIs, a.URIs) || !slices.Equal(back.Qualifiers, a.Qualifiers) || !back.Pushed.Equal(a.Pushed) {
			t.Fatalf("came back as %+v, %v", back, err)
		}
	})
}

func BenchmarkPush(b *testing.B) {
	store := newBlobs(cas.Options{})
	x := open(b, b.TempDir(), store, Options{})
	a := blobAsset(store.store(b, "x"), "urn:x")
	for b.Loop() {
		if err := x.Push(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	store := newBlobs(cas.Options{})
	x := open(b, b.TempDir(), store, Options{})
	push(b, x, blobAsset(store.store(b, "x"), "urn:x"))
	for b.Loop() {
		if _, _, err := x.Fetch(b.Context(), queryFor("urn:x")); err != nil {
			b.Fatal(err)
		}
	}
}
