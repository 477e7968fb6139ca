package share_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/dht/locate/wire"
	"github.com/buildmesh/buildmesh/dht/onehop"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

var keyer = cid.NewKeyer([]byte("ours"))

// node is one member with a store.
type node struct {
	*wire.Node
	store   *casfake.Store
	guard   *share.Guard
	private *share.Private
	index   *onehop.Index
	locator *onehop.Locator
	fetcher *fetch.Fetcher
}

// blobServer is what a node's server offers of blobs: share.Blobs, or an adversary around it.
type blobServer interface {
	repb.ContentAddressableStorageServer
	Read(*bspb.ReadRequest, grpc.ServerStreamingServer[bspb.ReadResponse]) error
}

// private opens a rule that shares all instances, and nothing of what noShare lists.
func private(t testing.TB, store *casfake.Store, noShare ...string) *share.Private {
	t.Helper()
	rule, err := share.ParseRule(nil, noShare)
	if err != nil {
		t.Fatal(err)
	}
	p, err := share.OpenPrivate(t.TempDir(), rule, store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func hide(t testing.TB, p *share.Private, ds ...digest.Digest) {
	t.Helper()
	if err := p.Hide(ds, share.ByName); err != nil {
		t.Fatal(err)
	}
}

// lab is some nodes; wrap, if not nil, gives what node i offers instead of its own service.
func lab(t testing.TB, n int, wrap func(i int, s *share.Blobs) blobServer) []*node {
	t.Helper()
	ids := locatetest.IDs(n)
	net := wire.New(ids)
	nodes := make([]*node, n)
	for i, id := range ids {
		x := &node{Node: net.Node(id), store: casfake.New(cas.Options{MaxBytes: 1 << 30}), guard: share.NewGuard(wire.Caller, 0)}
		x.private = private(t, x.store, "*.key")
		x.index = onehop.NewIndex()
		x.locator = onehop.New(id, x.index, x, x)
		x.fetcher = fetch.New(fetch.Options{Store: x.store, Dialer: x, Members: x, Keyer: keyer, Locator: x.locator})
		blobs := share.NewBlobs(x.store, x.guard, x.private)
		if wrap == nil || wrap(i, blobs) == nil {
			blobs.Register(x.Server)
		} else {
			registerBlobs(x.Server, wrap(i, blobs))
		}
		(&share.Content{Guard: x.guard, Publisher: summary.NewPublisher(0), Index: x.index, OneHop: x.locator, Known: nothing{}}).Register(x.Server)
		nodes[i] = x
	}
	net.Start()
	t.Cleanup(net.Close)
	return nodes
}

// registerBlobs adds an adversary's services.
func registerBlobs(to grpc.ServiceRegistrar, s blobServer) {
	repb.RegisterContentAddressableStorageServer(to, s)
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: "google.bytestream.ByteStream",
		HandlerType: (*interface{})(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Read", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			var q bspb.ReadRequest
			if err := stream.RecvMsg(&q); err != nil {
				return err
			}
			return s.Read(&q, &grpc.GenericServerStream[bspb.ReadRequest, bspb.ReadResponse]{ServerStream: stream})
		}}},
	}, s)
}

// nothing knows no results.
type nothing struct{}

func (nothing) Answers(_ context.Context, keys []cid.Key) ([]share.Answer, error) {
	return make([]share.Answer, len(keys)), nil
}

// blob makes size bytes that no other seed makes.
func blob(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(b)
	return b
}

// fill stores n blobs of a size and gives their digests.
func fill(t testing.TB, s *casfake.Store, n, size int) []digest.Digest {
	t.Helper()
	ds := make([]digest.Digest, n)
	for i := range ds {
		b := blob(uint64(i)+uint64(size)<<32, size)
		ds[i] = digest.Functions()[i%2].Of(b)
		if err := s.Put(t.Context(), ds[i], b); err != nil {
			t.Fatal(err)
		}
	}
	return ds
}

// fetchAll fetches and checks that nothing is missing and every blob is whole.
func (n *node) fetchAll(t testing.TB, ds []digest.Digest, hints ...peer.ID) {
	t.Helper()
	missing, err := n.fetcher.Fetch(t.Context(), ds, hints)
	if err != nil || len(missing) > 0 {
		t.Fatalf("%d of %d missing, %v", len(missing), len(ds), err)
	}
	data, err := n.store.GetBatch(t.Context(), ds)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range data {
		if ds[i].Function().Of(b) != ds[i] {
			t.Fatalf("blob %s is not what it should be", ds[i])
		}
	}
}

func TestTwoNodes(t *testing.T) {
	nodes := lab(t, 2, nil)
	ds := append(fill(t, nodes[0].store, 3000, 700), fill(t, nodes[0].store, 2, 3<<20)...)
	ds = append(ds, fill(t, nodes[0].store, 5, 900<<10)...)
	ds = append(ds, digest.SHA256.Empty())
	nodes[1].fetchAll(t, ds, nodes[0].ID)
	before := nodes[0].Calls()
	nodes[1].fetchAll(t, ds, nodes[0].ID)
	if after := nodes[0].Calls(); after != before {
		t.Errorf("%d calls for what is here", after-before)
	}
	if before > 20 {
		t.Errorf("%d calls for 3007 blobs", before)
	}
}

// What may come and go in a second is bounded: after a burst of 8 MiB, which both bounds give, 12 MiB at 8 MiB a second take half a
// second at least, however fast the machine is.
func TestCaps(t *testing.T) {
	const bound = 8 << 20
	for _, at := range []string{"sender", "receiver"} {
		t.Run(at, func(t *testing.T) {
			slow := casfake.New(cas.Options{MaxBytes: 1 << 30})
			nodes := lab(t, 2, func(i int, s *share.Blobs) blobServer {
				if i == 1 || at != "sender" {
					return nil
				}
				private := &share.Private{}
				return share.NewBlobs(slow, share.NewGuard(wire.Caller, bound), private)
			})
			ds := append(fill(t, slow, 1, 9<<20), fill(t, slow, 300, 10<<10)...)
			fill(t, nodes[0].store, 1, 9<<20)
			fill(t, nodes[0].store, 300, 10<<10)
			options := fetch.Options{Store: nodes[1].store, Dialer: nodes[1], Members: nodes[1], Keyer: keyer}
			if at == "receiver" {
				options.Rate = bound
			}
			nodes[1].fetcher = fetch.New(options)
			began := time.Now()
			nodes[1].fetchAll(t, ds, nodes[0].ID)
			if took := time.Since(began); took < 400*time.Millisecond {
				t.Errorf("12 MiB came in %v", took)
			}
		})
	}
}

// asked counts how often a node is asked what it has.
type asked struct {
	*share.Blobs
	times atomic.Int64
}

func (a *asked) FindMissingBlobs(ctx context.Context, q *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	a.times.Add(1)
	return a.Blobs.FindMissingBlobs(ctx, q)
}

// A blob nobody is named for is found in the index, where nobody needs to be asked whether he has it; else by asking everybody,
// else nowhere.
func TestFoundWithoutHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var members [4]*asked
		nodes := lab(t, 4, func(i int, s *share.Blobs) blobServer {
			if members[i] == nil {
				members[i] = &asked{Blobs: s}
			}
			return members[i]
		})
		times := func() (n int64) {
			for _, m := range members {
				n += m.times.Load()
			}
			return n
		}
		ds := fill(t, nodes[2].store, 30, 1000)
		var keys []cid.Key
		for _, d := range ds[:10] {
			keys = append(keys, keyer.Blob(d))
		}
		if err := nodes[2].locator.Announce(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		nodes[0].fetchAll(t, ds[:10])
		if n := times(); n != 0 {
			t.Errorf("members were asked %d times for what the index knows", n)
		}
		nodes[1].fetchAll(t, ds, nodes[3].ID)
		absent := digest.SHA256.Of([]byte("nobody has this"))
		missing, err := nodes[0].fetcher.Fetch(t.Context(), []digest.Digest{absent, ds[20]}, nil)
		if err != nil || len(missing) != 1 || missing[0] != absent || times() == 0 {
			t.Errorf("missing %v, members asked %d times, %v", missing, times(), err)
		}
	})
}

// Of a large mesh no more than MaxAsked are asked for what nobody is named for, those that have been there longest.
func TestMaxAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const others = fetch.MaxAsked + 3
		nodes := lab(t, 1+others, nil)
		for _, x := range nodes[1:4] {
			x.SetAlive(time.Second)
		}
		alone := fetch.New(fetch.Options{Store: nodes[0].store, Dialer: nodes[0], Members: nodes[0], Keyer: keyer})
		absent := digest.SHA256.Of([]byte("nobody has this"))
		if missing, err := alone.Fetch(t.Context(), []digest.Digest{absent}, nil); err != nil || len(missing) != 1 {
			t.Errorf("missing %v, %v", missing, err)
		}
		for i, x := range nodes[1:] {
			if asked := x.Calls() > 0; asked != (i >= 3) {
				t.Errorf("member %d was asked: %v", i+1, asked)
			}
		}
	})
}

// Many callers want the same blobs at once: each travels once.
func TestSingleFlight(t *testing.T) {
	nodes := lab(t, 2, nil)
	ds := append(fill(t, nodes[0].store, 100, 5000), fill(t, nodes[0].store, 1, 4<<20)...)
	nodes[0].Freeze()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() { nodes[1].fetchAll(t, ds, nodes[0].ID) })
	}
	for deadline := time.Now().Add(5 * time.Second); nodes[0].Calls() < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	nodes[0].Thaw()
	callers.Wait()
	if n := nodes[0].Calls(); n > 4 {
		t.Errorf("%d calls for one batch and one stream", n)
	}
}

// Who gave up takes nothing from those who still want it.
func TestCancelledFlight(t *testing.T) {
	nodes := lab(t, 2, nil)
	ds := fill(t, nodes[0].store, 10, 5000)
	nodes[0].Freeze()
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	callers.Go(func() {
		if _, err := nodes[1].fetcher.Fetch(ctx, ds, []peer.ID{nodes[0].ID}); err == nil {
			t.Error("a cancelled fetch succeeds")
		}
	})
	for nodes[0].Calls() == 0 {
		time.Sleep(time.Millisecond)
	}
	callers.Go(func() { nodes[1].fetchAll(t, ds, nodes[0].ID) })
	cancel()
	nodes[0].Thaw()
	callers.Wait()
}

// What is private is absent, by every call.
func TestPrivate(t *testing.T) {
	nodes := lab(t, 2, nil)
	ds := append(fill(t, nodes[0].store, 4, 100), fill(t, nodes[0].store, 1, 2<<20)...)
	hide(t, nodes[0].private, ds[2:]...)
	missing, err := nodes[1].fetcher.Fetch(t.Context(), ds, []peer.ID{nodes[0].ID})
	if err != nil || len(missing) != 3 {
		t.Errorf("%d missing, %v", len(missing), err)
	}
}

// A stranger is not served, and nobody may write.
func TestStrangersAndWriters(t *testing.T) {
	nodes := lab(t, 2, nil)
	d := fill(t, nodes[0].store, 1, 100)[0]
	stranger := share.NewBlobs(nodes[0].store, share.NewGuard(func(context.Context) (peer.ID, bool) { return peer.ID{}, false }, 0), nodes[0].private)
	if _, err := stranger.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto()}}); err == nil {
		t.Error("a stranger is served a batch")
	}
	if _, err := stranger.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{}); err == nil {
		t.Error("a stranger is told what is missing")
	}
	conn, _ := nodes[1].Bulk(t.Context(), nodes[0].ID)
	cas := repb.NewContentAddressableStorageClient(conn)
	if _, err := cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{}); err == nil {
		t.Error("a member may write")
	}
	w, err := bspb.NewByteStreamClient(conn).Write(t.Context())
	if err == nil {
		_, err = w.CloseAndRecv()
	}
	if err == nil {
		t.Error("a member may stream")
	}
}
