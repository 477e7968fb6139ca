package actioncache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Whatever a result refers to: without it there is no hit, cold or warm, and with it there is again.
func TestHitIsComplete(t *testing.T) {
	for _, fn := range digest.Functions() {
		b := newBlobs(fn)
		result, parts := example(t, b)
		key := keyOf(fn, "action")
		dir := t.TempDir()
		c := open(t, dir, b, Options{})
		if err := c.Put(t.Context(), key, result); err != nil {
			t.Fatal(err)
		}
		got, err := c.Get(t.Context(), key)
		if err != nil || !proto.Equal(got, result) {
			t.Fatalf("%s: %v, %v", fn, got, err)
		}
		for role, d := range parts {
			content, err := b.Store.Get(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			b.Lose(d)
			for _, state := range []string{"warm", "cold"} {
				if _, err := c.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: %s hit without the %s: %v", fn, state, role, err)
				}
			}
			if err := b.Store.Put(t.Context(), d, content); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Get(t.Context(), key); err != nil {
				t.Errorf("%s: the %s is back: %v", fn, role, err)
			}
		}
		if st := c.Stat(); st.Incomplete != int64(2*len(parts)) || st.Hits != int64(len(parts)+1) {
			t.Errorf("%s: %+v", fn, st)
		}
	}
}

func TestMiss(t *testing.T) {
	b := newBlobs(digest.SHA256)
	c := open(t, t.TempDir(), b, Options{})
	key := keyOf(digest.SHA256, "action")
	if _, err := c.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := c.Put(t.Context(), key, &repb.ActionResult{}); err != nil {
		t.Fatal(err)
	}
	// Everything in a key counts.
	for name, other := range map[string]Key{
		"root":     {Action: key.Action, Root: Client},
		"function": {Action: digest.New(digest.BLAKE3, key.Action.Hash(), key.Action.Size())},
		"size":     {Action: digest.New(digest.SHA256, key.Action.Hash(), 99)},
		"hash":     keyOf(digest.SHA256, "bction"),
	} {
		if _, err := c.Get(t.Context(), other); !errors.Is(err, ErrNotFound) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if _, err := c.Get(t.Context(), key); err != nil {
		t.Error(err)
	}
	if err := c.Delete(key); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	if err := c.Delete(key); err != nil {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestWarmHitChecksNothing(t *testing.T) {
	b, clock := newBlobs(digest.SHA256), newClock()
	c := open(t, t.TempDir(), b, Options{TouchEvery: time.Minute, Clock: clock.Now})
	result, _ := example(t, b)
	key := keyOf(digest.SHA256, "action")
	if err := c.Put(t.Context(), key, result); err != nil {
		t.Fatal(err)
	}
	hit := func(what string, checks int64) {
		t.Helper()
		before, reads := b.checks.Load(), b.reads.Load()
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if got := b.checks.Load() - before; got != checks {
			t.Errorf("%s: %d checks, want %d", what, got, checks)
		}
		if what != "cold" && b.reads.Load() != reads {
			t.Errorf("%s: trees were read again", what)
		}
	}
	hit("cold", 1)
	hit("warm", 0)
	clock.advance(59 * time.Second)
	hit("still warm", 0)
	clock.advance(time.Second)
	hit("lifetimes are due", 1)
	hit("warm again", 0)
	clock.advance(-time.Hour)
	hit("the clock was set back", 1)
	other := b.fn.Of([]byte("unrelated"))
	b.store(t, []byte("unrelated"))
	b.Lose(other)
	hit("something left the store", 1)
	hit("warm after that", 0)
	if st := c.Stat(); st.Warm != 4 || st.Memory <= 0 {
		t.Errorf("%+v", st)
	}
}

// A result that is asked for keeps its blobs in a store that is full of newer ones.
func TestHitExtendsLifetimes(t *testing.T) {
	clock := newClock()
	const lease = 10 * time.Minute
	b := &blobs{fn: digest.SHA256, Store: casfake.New(cas.Options{MaxBytes: 8 << 10, Lease: lease, Clock: clock.Now})}
	c := open(t, t.TempDir(), b, Options{TouchEvery: time.Minute, Clock: clock.Now})
	result, parts := example(t, b)
	key := keyOf(digest.SHA256, "action")
	if err := c.Put(t.Context(), key, result); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		clock.advance(lease / 4)
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		filler := fmt.Appendf(nil, "%1000d", i)
		if err := b.Store.Put(t.Context(), b.fn.Of(filler), filler); err != nil {
			t.Fatal(err)
		}
	}
	if b.Stat().Evicted == 0 {
		t.Error("the store was not under pressure")
	}
	for role, d := range parts {
		if !b.Contains(d) {
			t.Errorf("%s was evicted", role)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	good := digest.SHA256.Of([]byte("x")).Proto()
	bad := &repb.Digest{Hash: "abc"}
	c := open(t, t.TempDir(), newBlobs(digest.SHA256), Options{})
	key := keyOf(digest.SHA256, "action")
	for name, r := range map[string]*repb.ActionResult{
		"file without digest":      {OutputFiles: []*repb.OutputFile{{Path: "x"}}},
		"file":                     {OutputFiles: []*repb.OutputFile{{Path: "x", Digest: bad}}},
		"directory without digest": {OutputDirectories: []*repb.OutputDirectory{{Path: "x"}}},
		"tree":                     {OutputDirectories: []*repb.OutputDirectory{{Path: "x", TreeDigest: bad, RootDirectoryDigest: good}}},
		"root":                     {OutputDirectories: []*repb.OutputDirectory{{Path: "x", TreeDigest: good, RootDirectoryDigest: bad}}},
		"stdout":                   {StdoutDigest: bad},
		"stderr":                   {StderrDigest: bad},
		"text that is not UTF-8":   {OutputSymlinks: []*repb.OutputSymlink{{Path: "\xff"}}},
	} {
		if err := c.Put(t.Context(), key, r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Put(t.Context(), key, &repb.ActionResult{ExitCode: 1}); !errors.Is(err, ErrUncacheable) {
		t.Errorf("failed action: %v", err)
	}
	if st := c.Stat(); st.Entries != 0 {
		t.Errorf("%d records of refused results", st.Entries)
	}
}

func TestInvalidTreesAreMisses(t *testing.T) {
	b := newBlobs(digest.SHA256)
	c := open(t, t.TempDir(), b, Options{Trees: tree.Limits{MaxDirectoryBytes: 1000}})
	leaf := &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: b.store(t, []byte("x"))}}}
	huge := digest.New(digest.SHA256, [32]byte{1}, 1001).Proto()
	for name, o := range map[string]*repb.OutputDirectory{
		"bytes that are no Tree": {TreeDigest: b.store(t, []byte{0xff})},
		"unsafe name":            {TreeDigest: b.message(t, &repb.Tree{Root: &repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "..", Target: "x"}}}})},
		"tree without its child": {TreeDigest: b.message(t, &repb.Tree{Root: &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "d", Digest: b.message(t, leaf)}}}})},
		"root of another tree":   {TreeDigest: b.message(t, &repb.Tree{Root: leaf}), RootDirectoryDigest: b.message(t, &repb.Directory{})},
		"huge tree":              {TreeDigest: huge},
		"huge root":              {RootDirectoryDigest: huge},
		"root is no Directory":   {RootDirectoryDigest: b.store(t, []byte{0xff})},
	} {
		key := keyOf(digest.SHA256, name)
		if err := c.Put(t.Context(), key, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{o}}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), key); !errors.Is(err, ErrNotFound) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, o := range map[string]*repb.OutputDirectory{
		"empty Tree message": {TreeDigest: b.fn.Empty().Proto()},
		"empty root":         {RootDirectoryDigest: b.fn.Empty().Proto()},
	} {
		key := keyOf(digest.SHA256, name)
		if err := c.Put(t.Context(), key, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{o}}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStoreFailureIsNoMiss(t *testing.T) {
	b := newBlobs(digest.SHA256)
	c := open(t, t.TempDir(), b, Options{})
	result, _ := example(t, b)
	key := keyOf(digest.SHA256, "action")
	if err := c.Put(t.Context(), key, result); err != nil {
		t.Fatal(err)
	}
	b.fail = errors.New("disk on fire")
	if _, err := c.Get(t.Context(), key); !errors.Is(err, b.fail) || errors.Is(err, ErrNotFound) {
		t.Errorf("cold: %v", err)
	}
	b.fail = nil
	if _, err := c.Get(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := keyOf(digest.SHA256, "other")
	if err := c.Put(t.Context(), other, &repb.ActionResult{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, other); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotFound) {
		t.Errorf("cancelled: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), other); !errors.Is(err, record.ErrClosed) || errors.Is(err, ErrNotFound) {
		t.Errorf("closed: %v", err)
	}
	if err := c.Put(t.Context(), other, &repb.ActionResult{}); !errors.Is(err, record.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestOverwrite(t *testing.T) {
	b := newBlobs(digest.SHA256)
	dir := t.TempDir()
	c := open(t, dir, b, Options{})
	key := keyOf(digest.SHA256, "action")
	for i := range 5 {
		want := &repb.ActionResult{StdoutRaw: fmt.Append(nil, i)}
		if err := c.Put(t.Context(), key, want); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := c.Get(t.Context(), key); err != nil || !proto.Equal(got, want) {
				t.Errorf("round %d: %v, %v", i, got, err)
			}
		}
	}
	if st := c.Stat(); st.Entries != 1 {
		t.Errorf("%d records of one action", st.Entries)
	}
}

// A Get that read the old record must not have it remembered after a Put replaced it.
func TestGetDuringPut(t *testing.T) {
	b := newBlobs(digest.SHA256)
	c := open(t, t.TempDir(), b, Options{})
	key := keyOf(digest.SHA256, "action")
	older, newer := &repb.ActionResult{StdoutRaw: []byte("old")}, &repb.ActionResult{StdoutRaw: []byte("new")}
	if err := c.Put(t.Context(), key, older); err != nil {
		t.Fatal(err)
	}
	b.onChecks = func() {
		b.onChecks = nil
		if err := c.Put(t.Context(), key, newer); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Get(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), key); err != nil || !proto.Equal(got, newer) {
		t.Errorf("after Put: %v, %v", got, err)
	}
}

func TestSurvivesRestart(t *testing.T) {
	b := newBlobs(digest.BLAKE3)
	dir := t.TempDir()
	result, parts := example(t, b)
	key := keyOf(digest.BLAKE3, "action")
	c := open(t, dir, b, Options{})
	if err := c.Put(t.Context(), key, result); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, b, Options{}); !errors.Is(err, record.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, b, Options{})
	if got, err := c.Get(t.Context(), key); err != nil || !proto.Equal(got, result) {
		t.Errorf("%v, %v", got, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	b.Lose(parts["file in both"])
	c = open(t, dir, b, Options{})
	if _, err := c.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob was lost while closed: %v", err)
	}
}

// What stands in the log under a key but is not a result of ours is a miss.
func TestForeignRecords(t *testing.T) {
	b := newBlobs(digest.SHA256)
	dir := t.TempDir()
	c := open(t, dir, b, Options{})
	good := func(name string) []byte {
		return sealEnvelope(keyOf(digest.SHA256, name), time.Unix(0, 0), marshal(t, &repb.ActionResult{StdoutRaw: []byte("x")}))
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":              func([]byte) []byte { return nil },
		"cut envelope":         func(v []byte) []byte { return v[:envelopeSize-1] },
		"version of tomorrow":  func(v []byte) []byte { v[0]++; return v },
		"another function":     func(v []byte) []byte { v[1]++; return v },
		"another action":       func([]byte) []byte { return good("another") },
		"another root":         func(v []byte) []byte { v[45]++; return v },
		"result that is noise": func(v []byte) []byte { return append(v[:envelopeSize], 0xff) },
		"result with a bad digest": func(v []byte) []byte {
			return append(v[:envelopeSize], marshal(t, &repb.ActionResult{StdoutDigest: &repb.Digest{Hash: "x"}})...)
		},
	} {
		key := keyOf(digest.SHA256, name)
		if err := c.log.Put([]record.Item{{Key: recordKey(key), Value: spoil(good(name))}}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := c.Stat(); st.Unreadable != 8 {
		t.Errorf("%+v", st)
	}
	key := keyOf(digest.SHA256, "good")
	if err := c.log.Put([]record.Item{{Key: recordKey(key), Value: good("good")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), key); err != nil {
		t.Error(err)
	}
}

func TestConcurrentUse(t *testing.T) {
	b := newBlobs(digest.SHA256)
	c := open(t, t.TempDir(), b, Options{MaxMemory: 20 << 10})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 100 {
				key := keyOf(digest.SHA256, fmt.Sprint(i%20))
				switch (i + w) % 3 {
				case 0:
					if err := c.Put(t.Context(), key, &repb.ActionResult{StdoutRaw: fmt.Append(nil, i%20)}); err != nil {
						t.Error(err)
					}
				case 1:
					filler := fmt.Appendf(nil, "filler %d of %d", i, w)
					if err := b.Store.Put(t.Context(), b.fn.Of(filler), filler); err != nil {
						t.Error(err)
					}
					b.Lose(b.fn.Of(filler))
				}
				got, err := c.Get(t.Context(), key)
				if err != nil && !errors.Is(err, ErrNotFound) || err == nil && string(got.StdoutRaw) != fmt.Sprint(i%20) {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}
