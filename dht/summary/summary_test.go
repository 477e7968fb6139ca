package summary

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/dht/locate/wire"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// server serves one publisher.
type server struct {
	contentv1.UnimplementedContentServer
	publisher *Publisher
}

func (s server) Summary(q *contentv1.SummaryRequest, stream grpc.ServerStreamingServer[contentv1.SummaryPart]) error {
	return s.publisher.Follow(stream.Context(), q, stream.Send)
}

// world is some nodes that follow each other.
type world struct {
	net   *wire.Net
	nodes []*Locator
}

func newWorld(t *testing.T, ids []peer.ID) *world {
	w := &world{net: wire.New(ids)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, id := range ids {
		node := w.net.Node(id)
		l := &Locator{Publisher: NewPublisher(0), Peers: NewPeers(node, node)}
		contentv1.RegisterContentServer(node.Server, server{publisher: l.Publisher})
		w.nodes = append(w.nodes, l)
	}
	w.net.Start()
	for _, l := range w.nodes {
		running.Go(func() { l.Peers.Run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		w.net.Close()
	})
	return w
}

// settle waits until every node has every other one's summary as it is now.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for _, l := range w.nodes {
		if err := l.Publisher.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); !w.settled(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("summaries do not spread")
		}
	}
}

func (w *world) settled() bool {
	for i, from := range w.nodes {
		s := from.Publisher.state()
		for j, to := range w.nodes {
			if i == j {
				continue
			}
			to.Peers.mu.RLock()
			has := to.Peers.byID[locatetest.IDs(len(w.nodes))[i]]
			is := has != nil && has.current && has.epoch == s.epoch && has.sequence == uint64(len(s.delta))
			to.Peers.mu.RUnlock()
			if !is {
				return false
			}
		}
	}
	return true
}

func TestConformance(t *testing.T) {
	locatetest.Run(t, func(t *testing.T, ids []peer.ID) locatetest.World {
		w := newWorld(t, ids)
		out := locatetest.World{Settle: w.settle}
		for _, l := range w.nodes {
			out.Locators = append(out.Locators, l)
		}
		return out
	})
}

func TestFindSendsNothing(t *testing.T) {
	ids := locatetest.IDs(3)
	w := newWorld(t, ids)
	keys := locatetest.Keys("one", 100)
	if err := w.nodes[0].Announce(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	w.settle(t)
	before := w.net.Node(ids[0]).Calls() + w.net.Node(ids[2]).Calls()
	found, _ := w.nodes[1].Find(t.Context(), append(keys, locatetest.Keys("other", 100)...))
	if len(found[0]) != 1 || len(found[100]) != 0 {
		t.Errorf("found %d and %d providers", len(found[0]), len(found[100]))
	}
	if after := w.net.Node(ids[0]).Calls() + w.net.Node(ids[2]).Calls(); after != before {
		t.Errorf("%d calls were made", after-before)
	}
}

// A peer that is cut off is no longer found; one that comes late is.
func TestMembershipIsFollowed(t *testing.T) {
	ids := locatetest.IDs(3)
	w := newWorld(t, ids)
	keys := locatetest.Keys("one", 10)
	w.nodes[0].Announce(t.Context(), keys)
	w.settle(t)
	w.net.Node(ids[0]).Cut()
	for deadline := time.Now().Add(20 * time.Second); len(w.nodes[1].Peers.Find(keys)[0]) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a peer that left is still found")
		}
	}
}

// Bases of every size hold what they are made of; the delta is folded in when it has grown.
func TestBases(t *testing.T) {
	for _, width := range []int{narrow, wide} {
		for _, n := range []int{0, 1, 2, 3, 10, 1000, 50_000} {
			p, peers := NewPublisher(width), NewPeers(nil, nil)
			s := peers.add(peer.ID{1}, false)
			keys := locatetest.Keys("size", n)
			if err := p.Add(keys); err != nil {
				t.Fatal(err)
			}
			p.removed = 1
			if err := p.Flush(); err != nil {
				t.Fatal(err)
			}
			feed(t, p, peers, s)
			for i, found := range peers.Find(keys) {
				if len(found) != 1 {
					t.Fatalf("%d keys of %d bits: key %d is not found", n, width, i)
				}
			}
			wrong := 0
			for _, found := range peers.Find(locatetest.Keys("other", 20_000)) {
				wrong += len(found)
			}
			if wrong > 8 {
				t.Errorf("%d keys of %d bits: %d of 20000 found that are not there", n, width, wrong)
			}
		}
	}
}

// feed hands everything a publisher has now to a peer's summary.
func feed(t testing.TB, p *Publisher, peers *Peers, s *summary) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	want := p.state()
	err := p.Follow(ctx, &contentv1.SummaryRequest{Epoch: s.epoch, Sequence: s.sequence}, func(part *contentv1.SummaryPart) error {
		if err := peers.take(s, part); err != nil {
			return err
		}
		if s.epoch == want.epoch && s.sequence == uint64(len(want.delta)) && s.incoming == nil {
			cancel()
		}
		return nil
	})
	if ctx.Err() == nil {
		t.Fatal(err)
	}
}

// Epochs change behind a follower's back, and it always ends with what is there.
func TestFollowerKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, peers := NewPublisher(0), NewPeers(nil, nil)
		s := peers.add(peer.ID{1}, false)
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() {
			p.Follow(ctx, &contentv1.SummaryRequest{}, func(part *contentv1.SummaryPart) error { return peers.take(s, part) })
		})
		keys := locatetest.Keys("one", 12_000)
		for at := 0; at < len(keys); at += 1000 {
			p.Add(keys[at : at+1000])
			time.Sleep(Interval / 2)
		}
		p.Remove(keys[:6000])
		time.Sleep(2 * Interval)
		synctest.Wait()
		for i, found := range peers.Find(keys) {
			if is := len(found) > 0; is != (i >= 6000) {
				t.Fatalf("key %d: found %v", i, is)
			}
		}
		cancel()
		following.Wait()
	})
}

// Whatever order of pieces a peer sends, nothing but an error and an empty summary comes of it.
func TestLyingPieces(t *testing.T) {
	good, err := encodeBase(wide, []uint64{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	part := func(epoch, size uint64, base []byte, sequence uint64, added ...uint64) *contentv1.SummaryPart {
		return &contentv1.SummaryPart{Epoch: epoch, BaseSize: size, Base: base, Sequence: sequence, Added: added}
	}
	whole := uint64(len(good))
	for name, parts := range map[string][]*contentv1.SummaryPart{
		"no epoch":           {part(0, 0, nil, 0, 1)},
		"a huge base":        {part(1, MaxBase+1, nil, 0)},
		"longer than said":   {part(1, 3, good, 0)},
		"an endless base":    {part(1, whole, good[:4], 0), part(1, whole, nil, 0)},
		"of two bases":       {part(1, whole, good[:4], 0), part(2, whole+1, good[4:], 0)},
		"garbage":            {part(1, 4, []byte("abcd"), 0)},
		"a gap in the delta": {part(1, whole, good, 0), part(1, 0, nil, 1, 7)},
		"an endless delta":   {part(1, whole, good, 0), part(1, 0, nil, 0, upTo(MaxDelta+minDelta+1)...)},
		"the same forever":   {part(1, whole, good, 0), part(1, 0, nil, 0, make([]uint64, MaxDelta+minDelta)...), part(1, 0, nil, MaxDelta+minDelta, 0)},
	} {
		peers := NewPeers(nil, nil)
		s := peers.add(peer.ID{1}, false)
		var err error
		for _, p := range parts {
			if err == nil {
				err = peers.take(s, p)
			}
		}
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func upTo(n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i)
	}
	return all
}

// A peer whose summary claims everything is asked a bounded number of times, then not any more.
func TestEmptyClaimsAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, peers := NewPublisher(0), NewPeers(nil, nil)
		liar, honest := peer.ID{1}, peer.ID{2}
		keys := locatetest.Keys("one", 1000)
		p.Add(keys)
		feed(t, p, peers, peers.add(liar, false))
		feed(t, p, peers, peers.add(honest, false))
		asked := 0
		for range 1000 {
			for _, id := range peers.Find(keys[:1])[0] {
				if id == liar {
					asked++
					peers.Report(liar, 1, 0)
				} else {
					peers.Report(honest, 1, 1)
				}
			}
		}
		if asked != muteClaims {
			t.Errorf("the liar was asked %d times, want %d", asked, muteClaims)
		}
		if found := peers.Find(keys[:1])[0]; len(found) != 1 || found[0] != honest {
			t.Errorf("found %v", found)
		}
		if muted := peers.Muted(); len(muted) != 1 || muted[0] != liar {
			t.Errorf("ignored are %v", muted)
		}
		time.Sleep(MuteFor + time.Second)
		if muted := peers.Muted(); len(muted) != 0 {
			t.Errorf("after a while %v are ignored", muted)
		}
		if found := peers.Find(keys[:1])[0]; len(found) != 2 {
			t.Errorf("after a while found %v", found)
		}
	})
}

func FuzzDecodeBase(f *testing.F) {
	for _, width := range []int{narrow, wide} {
		b, err := encodeBase(width, []uint64{1, 2, 3, 4, 5})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(encodeExact([]uint64{5, 1, 4}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeBase(b)
		if err != nil {
			return
		}
		for i := range uint64(64) {
			got.contains(i * 0x9e3779b97f4a7c15) // must not panic
		}
	})
}

var _ locate.Locator = (*Locator)(nil)

// full makes the summaries of so many peers, each with results of its own.
func full(b *testing.B, width, nodes, each int) *Peers {
	b.Helper()
	peers := NewPeers(nil, nil)
	for n := range nodes {
		p := NewPublisher(width)
		p.Add(locatetest.Keys(string(rune('A'+n)), each))
		feed(b, p, peers, peers.add(peer.ID{byte(n), 1}, false))
	}
	return peers
}

// BenchmarkMiss looks up what none of 63 peers has, each with 20,000 results: the time of one lookup,
// and how many in 10,000 find somebody all the same, for both widths.
func BenchmarkMiss(b *testing.B) {
	for _, width := range []int{narrow, wide} {
		b.Run(map[int]string{narrow: "bits=16", wide: "bits=32"}[width], func(b *testing.B) {
			peers := full(b, width, 63, 20_000)
			keys := locatetest.Keys("absent", 40_000)
			wrong, asked := 0, 0
			for b.Loop() {
				if len(peers.Find(keys[asked%len(keys) : asked%len(keys)+1])[0]) > 0 {
					wrong++
				}
				asked++
			}
			b.ReportMetric(float64(wrong)/float64(asked)*10_000, "false/10k")
			b.ReportMetric(float64(peers.Stat().Bytes)/(63*20_000), "B/result")
		})
	}
}

// BenchmarkAnnounce announces 10,000 results in batches of 16 to 7 followers: CPU of all of them.
func BenchmarkAnnounce(b *testing.B) {
	keys := locatetest.Keys("one", 10_000)
	for b.Loop() {
		p := NewPublisher(0)
		peers := NewPeers(nil, nil)
		all := make([]*summary, 7)
		for i := range all {
			all[i] = peers.add(peer.ID{byte(i), 1}, false)
		}
		for at := 0; at < len(keys); at += 16 {
			p.Add(keys[at : at+16])
			if at%512 == 0 { // what comes in one Interval at 2,000 results a second
				for _, s := range all {
					feed(b, p, peers, s)
				}
			}
		}
	}
}
