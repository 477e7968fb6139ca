package summary

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// passing is a bridge that follows the bridge of another site, fed in memory.
type passing struct {
	bridge *Bridge
	far    *summary
}

func newPassing(self, other peer.ID) *passing {
	at := locate.Member{ID: self, Site: "here"}
	sites := locate.Sites{Self: func() locate.Member { return at }, All: locate.Only(func() []locate.Member { return []locate.Member{{ID: other, Site: "there"}} })}
	node := &Locator{Publisher: NewPublisher(0), Peers: NewSitePeers(sites, nil)}
	return &passing{NewBridge(sites, node, nil), node.Peers.add(other, true)}
}

// follow takes what the other site's bridge publishes, as a stream of it would, until end is called.
func (p *passing) follow(from *Publisher) (end func()) {
	p.bridge.far.way(p.far)
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() {
		_ = from.Follow(ctx, p.bridge.far.begin(p.far), func(part *contentv1.SummaryPart) error { return p.bridge.far.take(p.far, part) })
		p.far.relay.end()
	})
	synctest.Wait() // what was published before is here
	return func() { cancel(); following.Wait() }
}

// What a bridge passes on is what the other site published, in its order: who goes over to another bridge goes on where it
// stood. One that hears nothing any more passes nothing on, and says so.
func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := peer.ID{9}
		site, passed := NewPublisher(0), []*passing{newPassing(peer.ID{1}, other), newPassing(peer.ID{2}, other)}
		follower := NewPeers(nil, nil)
		s := follower.add(other, true)
		bases := 0
		listen := func(to *passing) error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return to.bridge.Relay(ctx, other, follower.begin(s), func(part *contentv1.SummaryPart) error {
				if len(part.Base) > 0 {
					bases++
				}
				return follower.take(s, part)
			})
		}
		want := func(keys int, sent int) {
			t.Helper()
			for i, found := range follower.Find(locatetest.Keys("there", keys)) {
				if len(found) != 1 {
					t.Fatalf("key %d of %d is not found", i, keys)
				}
			}
			if bases != sent {
				t.Errorf("%d bases were sent, want %d", bases, sent)
			}
		}
		if err := listen(passed[0]); !errors.Is(err, ErrNoBridge) {
			t.Errorf("before anything came: %v", err)
		}
		site.Add(locatetest.Keys("there", 5000)) // a base
		ends := []func(){passed[0].follow(site), passed[1].follow(site)}
		time.Sleep(2 * Interval)
		site.Add(locatetest.Keys("there", 5100)) // and a delta
		time.Sleep(2 * Interval)
		if err := listen(passed[0]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first bridge: %v", err)
		}
		want(5100, 1)
		ends[0]()
		if err := listen(passed[0]); !errors.Is(err, ErrNoBridge) {
			t.Errorf("a bridge that hears nothing: %v", err)
		}
		site.Add(locatetest.Keys("there", 5200))
		if err := listen(passed[1]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second bridge: %v", err)
		}
		want(5200, 1)
		ends[0] = passed[0].follow(site)
		site.Add(locatetest.Keys("there", 20_000)) // another base
		if err := listen(passed[0]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first one again: %v", err)
		}
		want(20_000, 2)
		for _, end := range ends {
			end()
		}
		if err := passed[0].bridge.Relay(t.Context(), peer.ID{7}, &contentv1.SummaryRequest{}, nil); !errors.Is(err, ErrNoBridge) {
			t.Errorf("of a peer that is not followed: %v", err)
		}
	})
}

// A node that was no bridge has what it follows as a filter only: as a bridge it asks for everything once more, and finds by
// what it has until that is here.
func TestBecomingABridgeLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, site := newPassing(peer.ID{1}, peer.ID{9}), NewPublisher(0)
		keys := locatetest.Keys("there", 5000)
		site.Add(keys)
		ctx, cancel := context.WithCancel(t.Context())
		_ = site.Follow(ctx, p.bridge.far.begin(p.far), func(part *contentv1.SummaryPart) error {
			cancel() // one piece is all there is
			return p.bridge.far.take(p.far, part)
		})
		if q := p.bridge.far.begin(p.far); q.Epoch == 0 || string(q.Of) != string(p.far.id[:]) {
			t.Errorf("a member asks a bridge of its site for %v", q)
		}
		p.bridge.far.way(p.far)
		if q := p.bridge.far.begin(p.far); q.Epoch != 0 || q.Sequence != 0 || len(q.Of) != 0 {
			t.Errorf("a new bridge asks the other site's for %v", q)
		}
		if found := p.bridge.far.Find(keys[:1]); len(found[0]) != 1 {
			t.Error("it finds nothing until everything has come again")
		}
		end := p.follow(site)
		time.Sleep(2 * Interval)
		if !p.far.relay.has(site.epoch, uint64(len(site.delta))) {
			t.Error("it passes on something else than what was published")
		}
		end()
	})
}
