package actioncache

import (
	"fmt"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory(10_000)
	add := func(name string, encoded int) {
		key := keyOf(digest.SHA256, name)
		m.add(key, newRemembered(&repb.ActionResult{}, nil, encoded), m.epoch(key))
	}
	for i := range 100 {
		add(fmt.Sprint(i), 100)
		if i > 0 && m.get(keyOf(digest.SHA256, "0")) == nil {
			t.Fatalf("round %d: what is used was dropped", i)
		}
		if m.bytes() > 10_000 {
			t.Fatalf("round %d: %d bytes", i, m.bytes())
		}
	}
	if m.get(keyOf(digest.SHA256, "99")) == nil || m.get(keyOf(digest.SHA256, "1")) != nil {
		t.Error("not the oldest were dropped")
	}
	add("huge", 5_000)
	if m.get(keyOf(digest.SHA256, "huge")) != nil {
		t.Error("one result took the memory of many")
	}
	for range 3 {
		add("99", 200)
	}
	for i := range 100 {
		m.forget(keyOf(digest.SHA256, fmt.Sprint(i)))
	}
	if m.bytes() != 0 || m.order.Len() != 0 {
		t.Errorf("%d bytes of nothing", m.bytes())
	}
}

func TestMemoryDropsOnlyWhatItKnows(t *testing.T) {
	m := newMemory(10_000)
	key := keyOf(digest.SHA256, "x")
	first, second := newRemembered(nil, nil, 0), newRemembered(nil, nil, 0)
	m.add(key, first, m.epoch(key))
	m.add(key, second, m.epoch(key))
	if m.drop(key, first); m.get(key) != second {
		t.Error("another result was dropped")
	}
	if m.drop(key, second); m.get(key) != nil {
		t.Error("the result was kept")
	}
}

func FuzzRecord(f *testing.F) {
	key := keyOf(digest.SHA256, "action")
	f.Add(sealEnvelope(key, newClock().Now(), marshal(f, &repb.ActionResult{ExitCode: 1})))
	f.Add(append(head(key), make([]byte, 7)...))
	b := newBlobs(digest.SHA256)
	result, _ := example(f, b)
	f.Add(sealEnvelope(key, newClock().Now(), marshal(f, result)))
	c := &Cache{options: Options{}.withDefaults(), blobs: b}
	f.Fuzz(func(t *testing.T, value []byte) {
		encoded, err := openEnvelope(key, value)
		if err != nil {
			return
		}
		var r repb.ActionResult
		if proto.Unmarshal(encoded, &r) != nil {
			return
		}
		n, err := named(digest.SHA256, &r)
		all, err2 := c.references(t.Context(), digest.SHA256, &r)
		if err != nil && err2 == nil {
			t.Fatalf("references of a result without names: %v", err)
		}
		if err2 == nil && len(all) > 0 && len(n.blobs)+len(n.directories) == 0 {
			t.Fatal("references from nowhere")
		}
	})
}

func BenchmarkGetWarm(b *testing.B) {
	blobs := newBlobs(digest.SHA256)
	c := open(b, b.TempDir(), blobs, Options{})
	result, _ := example(b, blobs)
	key := keyOf(digest.SHA256, "action")
	if err := c.Put(b.Context(), key, result); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetCold(b *testing.B) {
	blobs := newBlobs(digest.SHA256)
	c := open(b, b.TempDir(), blobs, Options{})
	result, _ := example(b, blobs)
	key := keyOf(digest.SHA256, "action")
	if err := c.Put(b.Context(), key, result); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.memory.forget(key)
		if _, err := c.Get(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	blobs := newBlobs(digest.SHA256)
	c := open(b, b.TempDir(), blobs, Options{})
	result, _ := example(b, blobs)
	key := keyOf(digest.SHA256, "action")
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Put(b.Context(), key, result); err != nil {
			b.Fatal(err)
		}
	}
}
