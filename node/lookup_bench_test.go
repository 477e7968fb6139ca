package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/kad"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/dht/onehop"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/transport/transporttest"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// sharing are members over the real transport on loopback that tell each other what they have.
type sharing struct {
	nodes   []*transporttest.Node
	served  []*share.Content
	members [][]locate.Member // of each node
	keyer   *cid.Keyer
}

// unaware knows no results.
type unaware struct{}

func (unaware) Answers(_ context.Context, keys []cid.Key) ([]share.Answer, error) {
	return make([]share.Answer, len(keys)), nil
}

// fixedRoster never changes.
type fixedRoster []locate.Member

func (r fixedRoster) Members() []locate.Member { return r }

// trusting trusts everybody.
type trusting struct{}

func (trusting) Trusted(peer.ID) bool { return true }

func newSharing(b *testing.B, n int) *sharing {
	b.Helper()
	s := &sharing{served: make([]*share.Content, n), keyer: cid.NewKeyer([]byte("ours"))}
	s.nodes = transporttest.Start(b, n, func(i int, control, _ grpc.ServiceRegistrar) {
		s.served[i] = &share.Content{Guard: share.NewGuard(transport.Caller, 0), Publisher: summary.NewPublisher(summaryBits), Index: onehop.NewIndex(), Known: unaware{}}
		s.served[i].Register(control)
	})
	for i, x := range s.nodes {
		var others []locate.Member
		for _, other := range s.nodes {
			if other != x {
				others = append(others, locate.Member{ID: other.ID(), Alive: time.Hour})
			}
		}
		s.members = append(s.members, others)
		s.served[i].OneHop = onehop.New(x.ID(), s.served[i].Index, fixedRoster(others), x)
	}
	return s
}

// summaries has a node follow the summaries of all others, until the benchmark ends.
func (s *sharing) summaries(b *testing.B, at int) *summary.Locator {
	b.Helper()
	peers := summary.NewPeers(fixedRoster(s.members[at]), s.nodes[at])
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { peers.Run(ctx) })
	b.Cleanup(func() { cancel(); running.Wait() })
	return &summary.Locator{Publisher: s.served[at].Publisher, Peers: peers}
}

// lookup makes a node's lookup, with stores of its own.
func (s *sharing) lookup(b *testing.B, at int, locator locate.Locator) *lookup.Lookup {
	b.Helper()
	store := openStore(b)
	results, err := actioncache.Open(b.TempDir(), store, actioncache.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { results.Close() })
	receipts, err := receipt.Open(b.TempDir(), receipt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { receipts.Close() })
	l := lookup.New(lookup.Options{
		Self: s.nodes[at].ID(), Mesh: "ours", Keyer: s.keyer, Locator: locator, Dialer: s.nodes[at], Receipts: receipts, Results: results,
		Blobs: store, Policy: receipt.Policy{Agree: 1}, Trust: trusting{},
		Fetcher: fetch.New(fetch.Options{Store: store, Dialer: s.nodes[at], Members: fixedRoster(s.members[at]), Keyer: s.keyer}),
	})
	b.Cleanup(l.Close)
	return l
}

var benchRoot = actioncache.Root{7}

func benchQuery(kind string, i int) lookup.Query {
	return lookup.Query{Action: benchAction(kind, i), Roots: []actioncache.Root{benchRoot}}
}

func benchAction(kind string, i int) digest.Digest {
	return digest.SHA256.Of(fmt.Append(nil, kind, " ", i))
}

// BenchmarkHit looks up small results without outputs that another member made: the median of one, and how many empty calls to
// the same member, the fastest an answer could come, it takes. Run it:
//
//	go test ./node -run '^$' -bench 'Hit$' -benchtime 1x
func BenchmarkHit(b *testing.B) {
	const n = 1000
	s := newSharing(b, 2)
	maker := s.lookup(b, 0, &summary.Locator{Publisher: s.served[0].Publisher, Peers: summary.NewPeers(nil, nil)})
	s.served[0].Known = maker
	follows := s.summaries(b, 1)
	seeker := s.lookup(b, 1, follows)
	round := 0
	var hits, calls []time.Duration
	for b.Loop() {
		kind := fmt.Sprint("hit ", round)
		round++
		for i := range n {
			now := time.Now()
			err := maker.Publish(b.Context(), s.nodes[0].Identity, receipt.Statement{Action: benchAction(kind, i), Root: benchRoot,
				Result: &repb.ActionResult{StdoutRaw: fmt.Append(nil, i)}, Started: now, Completed: now})
			if err != nil {
				b.Fatal(err)
			}
		}
		last := []cid.Key{s.keyer.Result(benchAction(kind, n-1), benchRoot)}
		eventually(b, "the summary has the last result", func() bool { return len(follows.Peers.Find(last)[0]) > 0 })
		conn, err := s.nodes[1].Control(b.Context(), s.nodes[0].ID())
		if err != nil {
			b.Fatal(err)
		}
		for i := range n {
			began := time.Now()
			if _, err := contentv1.NewContentClient(conn).Results(b.Context(), &contentv1.ResultsRequest{}); err != nil {
				b.Fatal(err)
			}
			calls = append(calls, time.Since(began))
			began = time.Now()
			if _, err := seeker.Find(b.Context(), benchQuery(kind, i)); err != nil {
				b.Fatal(err)
			}
			hits = append(hits, time.Since(began))
		}
	}
	slices.Sort(hits)
	slices.Sort(calls)
	b.ReportMetric(float64(hits[len(hits)/2].Microseconds()), "median-us")
	b.ReportMetric(float64(hits[len(hits)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(hits[len(hits)/2].Seconds()/calls[len(calls)/2].Seconds(), "hit/call")
}

// BenchmarkMisses looks up what no member of 64 has, one after the other as a build does, with the summaries of the others, which
// have 20,000 results each; in the same run with the one-hop index of the same 64 and with kad-dht of 20 of them, each alone. It
// prints the seconds 40,000 misses add; the index and kad-dht are asked for a tenth and a hundredth of that. Run it:
//
//	go test ./node -run '^$' -bench 'Misses$' -benchtime 1x
func BenchmarkMisses(b *testing.B) {
	const nodes, inKad, each, misses = 64, 20, 20_000, 40_000
	s := newSharing(b, nodes)
	for i, x := range s.served[1:] {
		if err := x.Publisher.Add(locatetest.Keys(fmt.Sprint("made by ", i), each)); err != nil {
			b.Fatal(err)
		}
	}
	follows := s.summaries(b, 0)
	eventually(b, "all summaries have come", func() bool { return follows.Peers.Stat().Peers == nodes-1 })
	summaries, index := s.lookup(b, 0, follows), s.lookup(b, 0, s.served[0].OneHop)
	dht := s.lookup(b, 0, s.kad(b, inKad))
	miss := func(l *lookup.Lookup, kind string, n int) float64 {
		began := time.Now()
		for i := range n {
			if _, err := l.Find(b.Context(), benchQuery(kind, i)); err == nil {
				b.Fatal("found what nobody has")
			}
		}
		return time.Since(began).Seconds() * misses / float64(n)
	}
	var bySummary, byIndex, byKad float64
	rounds := 0
	for b.Loop() {
		kind := fmt.Sprint("miss ", rounds)
		rounds++
		bySummary += miss(summaries, kind, misses)
		byIndex += miss(index, kind, misses/10)
		byKad += miss(dht, kind, misses/100)
	}
	per := 1 / float64(rounds)
	b.ReportMetric(bySummary*per, "summaries-s/40k")
	b.ReportMetric(byIndex*per, "onehop-s/40k")
	b.ReportMetric(byKad*per, "kad-s/40k")
	b.ReportMetric(byIndex/bySummary, "onehop/summaries")
	b.ReportMetric(byKad/bySummary, "kad/summaries")
	b.ReportMetric(float64(summaries.Stat().Asked)*10_000/float64(rounds*misses), "asked/10k")
}

// kad has the first n nodes be a DHT, each connected to each, and gives the first one's part in it.
func (s *sharing) kad(b *testing.B, n int) *kad.Locator {
	b.Helper()
	var all []*kad.Locator
	for _, x := range s.nodes[:n] {
		l, err := kad.New(x.Host(), kad.Names{To: transport.ToLibp2p, From: transport.FromLibp2p})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
		all = append(all, l)
	}
	for i, x := range s.nodes[:n] {
		for _, other := range s.nodes[:i] {
			if _, err := x.Control(b.Context(), other.ID()); err != nil {
				b.Fatal(err)
			}
		}
	}
	key := []cid.Key{s.keyer.Result(benchAction("found in the DHT", 0), benchRoot)}
	eventually(b, "the DHT finds what its last node announced", func() bool {
		if err := all[n-1].Announce(b.Context(), key); err != nil {
			return false
		}
		found, err := all[0].Find(b.Context(), key)
		return err == nil && len(found[0]) > 0
	})
	return all[0]
}
