package asset

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// blobs is the fake store with what these tests add.
type blobs struct {
	*casfake.Store
	fn digest.Function

	mu   sync.Mutex // guards what is below
	fail error
	read int // calls of GetBatch
}

func newBlobs(o cas.Options) *blobs { return &blobs{Store: casfake.New(o), fn: digest.SHA256} }

func (b *blobs) failWith(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

func (b *blobs) reads() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

func (b *blobs) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	b.mu.Lock()
	b.read++
	err := b.fail
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return b.Store.GetBatch(ctx, ds)
}

func (b *blobs) store(t testing.TB, content string) digest.Digest {
	t.Helper()
	d := b.fn.Of([]byte(content))
	if err := b.Put(context.Background(), d, []byte(content)); err != nil {
		t.Fatal(err)
	}
	return d
}

// directory stores a Directory with one file for each name, of the name's own content, and the
// subdirectories given.
func (b *blobs) directory(t testing.TB, names []string, sub ...digest.Digest) digest.Digest {
	t.Helper()
	m := &repb.Directory{}
	for _, n := range names {
		m.Files = append(m.Files, &repb.FileNode{Name: n, Digest: b.store(t, n).Proto()})
	}
	for i, d := range sub {
		m.Directories = append(m.Directories, &repb.DirectoryNode{Name: fmt.Sprintf("sub%d", i), Digest: d.Proto()})
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b.store(t, string(data))
}

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 11, 11, 11, 11, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t testing.TB, dir string, b Blobs, o Options) *Index {
	t.Helper()
	x, err := Open(dir, b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// reopen closes x and opens its directory again, with its closures pinned.
func reopen(t testing.TB, x *Index, dir string, b Blobs, o Options) *Index {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, dir, b, o)
	x.restore(context.Background()) // the keeper does it as well; whoever is second has nothing to do
	return x
}

func push(t testing.TB, x *Index, a Asset) {
	t.Helper()
	if err := x.Push(context.Background(), a); err != nil {
		t.Fatal(err)
	}
}

func blobAsset(d digest.Digest, uris ...string) Asset {
	return Asset{Kind: Blob, URIs: uris, Digest: d}
}

func queryFor(uris ...string) Query { return Query{Kind: Blob, URIs: uris} }
