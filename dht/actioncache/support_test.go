package actioncache

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// blobs is the fake store with what these tests add: counts, failures, and a hook.
type blobs struct {
	*casfake.Store
	fn       digest.Function
	checks   atomic.Int64 // calls of Missing
	reads    atomic.Int64 // calls of GetBatch
	fail     error
	onChecks func()
}

func newBlobs(fn digest.Function) *blobs {
	return &blobs{Store: casfake.New(cas.Options{}), fn: fn}
}

func (b *blobs) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	b.checks.Add(1)
	if b.onChecks != nil {
		b.onChecks()
	}
	if b.fail != nil {
		return nil, b.fail
	}
	return b.Store.Missing(ctx, ds)
}

func (b *blobs) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	b.reads.Add(1)
	if b.fail != nil {
		return nil, b.fail
	}
	return b.Store.GetBatch(ctx, ds)
}

func (b *blobs) store(t testing.TB, data []byte) *repb.Digest {
	t.Helper()
	d := b.fn.Of(data)
	if err := b.Put(context.Background(), d, data); err != nil {
		t.Fatal(err)
	}
	return d.Proto()
}

func (b *blobs) message(t testing.TB, m proto.Message) *repb.Digest {
	t.Helper()
	return b.store(t, marshal(t, m))
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// clock is a time that tests set.
type clock struct{ now atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.now.Store(time.Date(2026, 11, 11, 11, 11, 11, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.now.Load()) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d)) }

func open(t testing.TB, dir string, b Blobs, o Options) *Cache {
	t.Helper()
	c, err := Open(dir, b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func keyOf(fn digest.Function, name string) Key { return Key{Action: fn.Of([]byte(name))} }

// example is a result that refers to a blob in every way there is. parts has each blob by its role.
func example(t testing.TB, b *blobs) (*repb.ActionResult, map[string]digest.Digest) {
	t.Helper()
	parts := map[string]digest.Digest{}
	part := func(role string, p *repb.Digest) *repb.Digest {
		d, err := digest.FromProto(b.fn, p)
		if err != nil {
			t.Fatal(err)
		}
		parts[role] = d
		return p
	}
	file := func(role string) []*repb.FileNode {
		return []*repb.FileNode{{Name: "f", Digest: part(role, b.store(t, []byte(role)))}}
	}
	// The first directory has a Tree alone, the second Directories alone, the third both.
	child := &repb.Directory{Files: file("file in tree child")}
	childDigest := b.fn.Of(marshal(t, child)).Proto()
	onlyTree := &repb.Tree{Root: &repb.Directory{
		Files: file("file in tree root"), Directories: []*repb.DirectoryNode{{Name: "d", Digest: childDigest}},
	}, Children: []*repb.Directory{child}}
	leaf := &repb.Directory{Files: file("file in leaf")}
	root := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "d", Digest: part("leaf directory", b.message(t, leaf))}}}
	bothLeaf := &repb.Directory{Files: file("file in both")}
	both := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "d", Digest: part("leaf of both", b.message(t, bothLeaf))}}}
	return &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{
			{Path: "out", Digest: part("output file", b.store(t, []byte("out")))},
			{Path: "empty", Digest: b.fn.Empty().Proto()},
		},
		OutputDirectories: []*repb.OutputDirectory{
			{Path: "a", TreeDigest: part("tree", b.message(t, onlyTree))},
			{Path: "b", RootDirectoryDigest: part("root directory", b.message(t, root))},
			{
				Path:                "c",
				TreeDigest:          part("tree of both", b.message(t, &repb.Tree{Root: both, Children: []*repb.Directory{bothLeaf}})),
				RootDirectoryDigest: part("root of both", b.message(t, both)),
			},
		},
		OutputSymlinks:    []*repb.OutputSymlink{{Path: "l", Target: "out"}},
		StdoutDigest:      part("stdout", b.store(t, []byte("stdout"))),
		StderrDigest:      part("stderr", b.store(t, []byte("stderr"))),
		StdoutRaw:         []byte("inline"),
		ExecutionMetadata: &repb.ExecutedActionMetadata{Worker: "ana"},
	}, parts
}
