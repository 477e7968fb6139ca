package share_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// adversary is a node that has everything and gives something else.
type adversary struct {
	*share.Blobs
	batch  func(*repb.BatchReadBlobsResponse) // spoils an answer
	stream func(q *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error
}

func (a *adversary) BatchReadBlobs(ctx context.Context, q *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	r, err := a.Blobs.BatchReadBlobs(ctx, q)
	if err == nil && a.batch != nil {
		a.batch(r)
	}
	return r, err
}

// spoiled passes what the real service sends through a function.
type spoiled struct {
	grpc.ServerStreamingServer[bspb.ReadResponse]
	send func([]byte) error
}

func (s spoiled) Send(r *bspb.ReadResponse) error { return s.send(r.Data) }

func (a *adversary) Read(q *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse]) error {
	if a.stream == nil {
		return a.Blobs.Read(q, to)
	}
	return a.Blobs.Read(q, spoiled{to, func(data []byte) error { return a.stream(q, to, data) }})
}

func flip(b []byte) []byte {
	b = append([]byte(nil), b...)
	b[len(b)/2] ^= 1
	return b
}

// misdeed is what an adversary does.
type misdeed struct {
	adversary
	lies bool // it is found out as a liar
}

// misdeeds are the adversaries by name.
func misdeeds() map[string]misdeed {
	send := func(to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
		return to.Send(&bspb.ReadResponse{Data: b})
	}
	return map[string]misdeed{
		"Swapper": {adversary{
			batch: func(r *repb.BatchReadBlobsResponse) {
				for _, item := range r.Responses {
					item.Data = flip(item.Data)
				}
			},
			stream: func(_ *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
				return send(to, flip(b))
			},
		}, true},
		"Truncator": {adversary{
			batch: func(r *repb.BatchReadBlobsResponse) {
				for _, item := range r.Responses {
					item.Data = item.Data[:len(item.Data)-1]
				}
			},
			stream: func(_ *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
				if err := send(to, b[:len(b)/2]); err != nil {
					return err
				}
				return status.Error(codes.Aborted, "gone")
			},
		}, true},
		"Hoarder": {adversary{ // claims everything, gives nothing
			batch: func(r *repb.BatchReadBlobsResponse) {
				for _, item := range r.Responses {
					item.Data, item.Status.Code = nil, int32(codes.NotFound)
				}
			},
			stream: func(*bspb.ReadRequest, grpc.ServerStreamingServer[bspb.ReadResponse], []byte) error {
				return status.Error(codes.NotFound, "not here")
			},
		}, false},
		"Slowpoke": {adversary{
			batch: func(*repb.BatchReadBlobsResponse) { time.Sleep(3 * time.Second) },
			stream: func(_ *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
				for _, c := range b { // byte by byte: something always comes
					if err := send(to, []byte{c}); err != nil {
						return err
					}
					select {
					case <-time.After(10 * time.Millisecond):
					case <-to.Context().Done():
						return to.Context().Err()
					}
				}
				return nil
			},
		}, false},
		"Bomber": {adversary{ // more than was asked for, and without end
			batch: func(r *repb.BatchReadBlobsResponse) {
				bomb := make([]byte, 3<<20)
				r.Responses = append(r.Responses[:1], &repb.BatchReadBlobsResponse_Response{Digest: digest.SHA256.Of(bomb).Proto(), Data: bomb})
			},
			stream: func(_ *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
				for {
					if err := send(to, b); err != nil {
						return err
					}
				}
			},
		}, true},
		"Compressor": {adversary{ // a zstd bomb: compressed answers are none
			batch: func(r *repb.BatchReadBlobsResponse) {
				for _, item := range r.Responses {
					item.Compressor = repb.Compressor_ZSTD
				}
			},
		}, true},
	}
}

// TestAdversaries: node 0 is honest, node 1 is not and is asked first. Whatever it does, node 2 gets every
// blob whole within the time, and node 1's standing says what it is. A liar is found out by what it answers, so the honest node
// answers after that: on a busy machine it would else be done before.
func TestAdversaries(t *testing.T) {
	for name, c := range misdeeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := lab(t, 3, func(i int, s *share.Blobs) blobServer {
				if i != 1 {
					return nil
				}
				return &adversary{s, c.batch, c.stream}
			})
			honest, bad, victim := nodes[0], nodes[1], nodes[2]
			small := fill(t, honest.store, 500, 2000)
			large := append(fill(t, honest.store, 2, 2<<20), fill(t, honest.store, 1, 40<<20)...)
			fill(t, bad.store, 500, 2000)
			fill(t, bad.store, 2, 2<<20)
			fill(t, bad.store, 1, 40<<20)
			if c.lies {
				honest.Freeze()
				var waiting sync.WaitGroup
				waiting.Go(func() {
					defer honest.Thaw()
					victim.foundOut(bad.ID)
				})
				defer waiting.Wait()
			}
			victim.fetchAll(t, append(small, large...), bad.ID, honest.ID)
			standing := victim.fetcher.Standings()[bad.ID]
			if (standing.Lies > 0) != c.lies {
				t.Errorf("the adversary's standing is %+v", standing)
			}
			if s := victim.fetcher.Standings()[honest.ID]; s.Lies > 0 {
				t.Errorf("the honest node's standing is %+v", s)
			}
		})
	}
}

// foundOut waits until a liar is known as one, or as long as a provider may take.
func (n *node) foundOut(liar peer.ID) {
	for deadline := time.Now().Add(fetch.GiveUp); n.fetcher.Standings()[liar].Lies == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// A liar that nobody else can stand in for gives nothing at all.
func TestOnlyLiar(t *testing.T) {
	nodes := lab(t, 2, func(i int, s *share.Blobs) blobServer {
		return &adversary{s, func(r *repb.BatchReadBlobsResponse) {
			for _, item := range r.Responses {
				item.Data = flip(item.Data)
			}
		}, func(_ *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
			return to.Send(&bspb.ReadResponse{Data: flip(b)})
		}}
	})
	ds := append(fill(t, nodes[0].store, 10, 2000), fill(t, nodes[0].store, 1, 2<<20)...)
	missing, err := nodes[1].fetcher.Fetch(t.Context(), ds, []peer.ID{nodes[0].ID})
	if err != nil || len(missing) != len(ds) {
		t.Errorf("%d of %d missing, %v", len(missing), len(ds), err)
	}
	if here, _ := nodes[1].store.Missing(t.Context(), ds); len(here) != len(ds) {
		t.Error("something unverified is visible")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for name, some := range map[string][]digest.Digest{"small": ds[:1], "large": ds[10:]} { // nobody is left to be asked
		missing, err := nodes[1].fetcher.Fetch(ctx, some, []peer.ID{nodes[0].ID})
		if err != nil || len(missing) != 1 {
			t.Errorf("a %s blob that only the liar has: missing %v, %v", name, missing, err)
		}
	}
}

// A provider that stops in the middle is replaced where it stood: the second one sends the rest only.
func TestResume(t *testing.T) {
	const half = 1 << 20
	var offset int64 = -1
	nodes := lab(t, 3, func(i int, s *share.Blobs) blobServer {
		if i == 2 {
			return nil
		}
		sent := 0
		return &adversary{s, nil, func(q *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
			if i == 1 {
				offset = q.ReadOffset
			} else if sent += len(b); sent > half {
				return status.Error(codes.Unavailable, "the lid was closed")
			}
			return to.Send(&bspb.ReadResponse{Data: b})
		}}
	})
	ds := fill(t, nodes[0].store, 1, 2*half)
	fill(t, nodes[1].store, 1, 2*half)
	nodes[2].fetchAll(t, ds, nodes[0].ID, nodes[1].ID)
	if offset != half {
		t.Errorf("the second provider was asked from %d on, want %d", offset, half)
	}
}

// The one provider that has a blob is slow for a while, as on a busy machine: it is asked again with more patience.
func TestSlowForAWhile(t *testing.T) {
	var asked atomic.Int64
	nodes := lab(t, 3, func(i int, s *share.Blobs) blobServer {
		if i == 2 {
			return nil
		}
		return &adversary{s, nil, func(_ *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
			if i == 1 {
				return status.Error(codes.NotFound, "not here")
			}
			if asked.Add(1) == 1 {
				<-to.Context().Done()
				return to.Context().Err()
			}
			return to.Send(&bspb.ReadResponse{Data: b})
		}}
	})
	ds := fill(t, nodes[0].store, 1, 2<<20)
	fill(t, nodes[1].store, 1, 2<<20)
	nodes[2].fetchAll(t, ds, nodes[0].ID, nodes[1].ID)
	if n := asked.Load(); n < 2 {
		t.Errorf("the slow provider was asked %d times, want twice or more", n)
	}
}

// A frozen provider costs a stall, not the fetch.
func TestFrozenProvider(t *testing.T) {
	nodes := lab(t, 3, nil)
	ds := append(fill(t, nodes[0].store, 2000, 3000), fill(t, nodes[0].store, 1, 5<<20)...)
	fill(t, nodes[1].store, 2000, 3000)
	fill(t, nodes[1].store, 1, 5<<20)
	nodes[1].Freeze()
	nodes[2].fetchAll(t, ds, nodes[1].ID, nodes[0].ID)
	nodes[1].Thaw()
}

// Small blobs that a provider is slow to bring come from another meanwhile: nobody waits until it has failed.
func TestHedge(t *testing.T) {
	nodes := lab(t, 3, nil)
	ds := fill(t, nodes[0].store, 200, 3000)
	fill(t, nodes[1].store, 200, 3000)
	nodes[1].Freeze()
	defer nodes[1].Thaw()
	nodes[2].fetchAll(t, ds, nodes[1].ID, nodes[0].ID)
	if asked, s := nodes[1].Calls(), nodes[2].fetcher.Standings(); asked == 0 || s[nodes[1].ID] != (fetch.Standing{}) || s[nodes[0].ID].Blobs != 200 {
		t.Errorf("the frozen one was asked %d times; standings %+v", asked, s)
	}
}

// A large blob comes from several providers at once, of each a part. Time stands still meanwhile, so nobody is slow.
func TestSeveralSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent [3]atomic.Int64
		nodes := lab(t, 4, func(i int, s *share.Blobs) blobServer {
			if i == 3 {
				return nil
			}
			return &adversary{s, nil, func(_ *bspb.ReadRequest, to grpc.ServerStreamingServer[bspb.ReadResponse], b []byte) error {
				sent[i].Add(int64(len(b)))
				return to.Send(&bspb.ReadResponse{Data: b})
			}}
		})
		var ds []digest.Digest
		for _, x := range nodes[:3] {
			ds = fill(t, x.store, 1, 32<<20)
		}
		nodes[3].fetchAll(t, ds, nodes[0].ID, nodes[1].ID, nodes[2].ID)
		for i, want := range []int64{16 << 20, 8 << 20, 8 << 20} { // four ranges, in turn
			if n := sent[i].Load(); n != want {
				t.Errorf("provider %d sent %d bytes, want %d", i, n, want)
			}
		}
	})
}

// Snoop guesses digests: after MissBurst guesses nothing is answered any more, not even what is there, until time passes.
func TestSnoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := lab(t, 2, nil)
		d := fill(t, nodes[0].store, 1, 100)[0]
		conn, _ := nodes[1].Control(t.Context(), nodes[0].ID)
		client := repb.NewContentAddressableStorageClient(conn)
		guesses := make([]*repb.Digest, 10_000)
		for i := range guesses {
			guesses[i] = digest.SHA256.Of([]byte{byte(i), byte(i >> 8), 1}).Proto()
		}
		if refused := nodes[0].guard.Refused(); len(refused) != 0 {
			t.Errorf("before anybody asked, refused are %v", refused)
		}
		answered := guess(t, len(guesses), func() error {
			_, err := client.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: guesses})
			return err
		})
		read := func() error {
			_, err := client.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto()}, DigestFunction: d.Function().Proto()})
			return err
		}
		if err := read(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("then a blob: %v", err)
		}
		if refused := nodes[0].guard.Refused(); len(refused) != 1 || refused[0] != nodes[1].ID {
			t.Errorf("refused are %v", refused)
		}
		time.Sleep(time.Duration(answered-share.MissBurst) * time.Second / share.MissRate)
		if err := read(); err != nil {
			t.Errorf("a blob, a while later: %v", err)
		}
	})
}

// guess asks for some things that are not here, again and again, until that is refused, and gives how many were answered.
func guess(t *testing.T, some int, ask func() error) (answered int) {
	t.Helper()
	err := ask()
	for ; err == nil && answered < 3*share.MissBurst; err = ask() {
		answered += some
	}
	if want := share.MissBurst + some; status.Code(err) != codes.ResourceExhausted || answered != want {
		t.Errorf("%d guesses were answered, want %d, then %v", answered, want, err)
	}
	return answered
}

// Snoop guesses results too, at whoever answers for them and in the index: the same bound holds, and holds for everything.
func TestSnoopOfResults(t *testing.T) {
	for name, ask := range map[string]func(ctx context.Context, c contentv1.ContentClient, keys [][]byte) error{
		"results": func(ctx context.Context, c contentv1.ContentClient, keys [][]byte) error {
			_, err := c.Results(ctx, &contentv1.ResultsRequest{Keys: keys})
			return err
		},
		"index": func(ctx context.Context, c contentv1.ContentClient, keys [][]byte) error {
			_, err := c.Find(ctx, &contentv1.FindRequest{Keys: keys})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := lab(t, 2, nil)
				d := fill(t, nodes[0].store, 1, 100)[0]
				conn, _ := nodes[1].Control(t.Context(), nodes[0].ID)
				var guesses [][]byte
				for _, k := range locatetest.Keys("guessed", 250) {
					guesses = append(guesses, k[:])
				}
				guess(t, len(guesses), func() error { return ask(t.Context(), contentv1.NewContentClient(conn), guesses) })
				_, err := repb.NewContentAddressableStorageClient(conn).FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{d.Proto()}, DigestFunction: d.Function().Proto()})
				if status.Code(err) != codes.ResourceExhausted {
					t.Errorf("then a blob: %v", err)
				}
			})
		})
	}
}

// A store that rotted on disk sends what does not verify: it is found out, and another provider serves.
func TestCorruptedStore(t *testing.T) {
	nodes := lab(t, 3, nil)
	ds := fill(t, nodes[0].store, 20, 2000)
	fill(t, nodes[1].store, 20, 2000)
	for _, d := range ds {
		nodes[1].store.Damage(d)
	}
	nodes[2].fetchAll(t, ds, nodes[1].ID, nodes[0].ID)
}
