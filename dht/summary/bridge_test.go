package summary

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// office is a bridge with two more members at its site, fed in memory, and somebody who follows from elsewhere.
type office struct {
	bridge   *Bridge
	members  []*Publisher // the bridge's own first
	follower *Peers
	far      atomic.Bool // somebody stands at another site
}

// newOffice follows within a synctest bubble until end is called.
func newOffice(t *testing.T, settled func(*office)) {
	ctx, end := context.WithCancel(t.Context())
	o := &office{follower: NewPeers(nil, nil)}
	o.far.Store(true)
	var running sync.WaitGroup
	self := locate.Member{ID: peer.ID{1}, Site: "here"}
	sites := locate.Sites{Self: func() locate.Member { return self }, All: locate.Only(func() []locate.Member {
		if o.far.Load() {
			return []locate.Member{{ID: peer.ID{9}, Site: "there"}}
		}
		return nil
	})}
	for range 3 {
		o.members = append(o.members, NewPublisher(0))
	}
	o.bridge = NewBridge(sites, &Locator{Publisher: o.members[0], Peers: NewPeers(nil, nil)}, nil)
	running.Go(func() { o.bridge.Run(ctx) })
	synctest.Wait()
	for i, p := range o.members[1:] {
		s := o.bridge.near.add(peer.ID{byte(2 + i)}, false)
		running.Go(func() {
			p.Follow(ctx, &contentv1.SummaryRequest{Exact: true}, func(part *contentv1.SummaryPart) error { return o.bridge.near.take(s, part) })
		})
	}
	s := o.follower.add(peer.ID{1}, true)
	running.Go(func() {
		o.bridge.Follow(ctx, &contentv1.SummaryRequest{Site: true}, func(part *contentv1.SummaryPart) error { return o.follower.take(s, part) })
	})
	settled(o)
	end()
	running.Wait()
}

// want checks which of the keys the follower finds.
func (o *office) want(t *testing.T, keys []cid.Key, is bool) {
	t.Helper()
	time.Sleep(4 * Interval)
	synctest.Wait()
	for i, found := range o.follower.Find(keys) {
		if (len(found) > 0) != is {
			t.Fatalf("key %d of %d: found %v, want %v", i, len(keys), !is, is)
		}
	}
}

// A bridge's summary is of what any member at its site has: what two have stays when one forgets it, what nobody has any
// more goes, and so does what a member had that is gone.
func TestBridge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newOffice(t, func(o *office) {
			keys := locatetest.Keys("one", 9000)
			own, second, third := keys[:3000], keys[2000:6000], keys[5000:]
			for i, some := range [][]cid.Key{own, second, third} {
				o.members[i].Add(some)
			}
			o.want(t, keys, true)
			o.want(t, locatetest.Keys("other", 1000), false)
			o.members[1].Remove(second)
			o.members[1].Flush()
			o.want(t, slices.Concat(own, third), true)
			o.want(t, keys[3000:5000], false)
			o.bridge.near.mu.Lock()
			gone := o.bridge.near.byID[peer.ID{3}]
			o.bridge.near.mu.Unlock()
			o.bridge.near.drop(gone.id)
			o.members[2].Add(locatetest.Keys("late", 10))
			o.want(t, own, true)
			o.want(t, keys[5000:], false)
			o.want(t, locatetest.Keys("late", 10), false)
			if n := o.bridge.site.Len(); n != len(own) {
				t.Errorf("%d results are counted, want %d", n, len(own))
			}
		})
	})
}

// Only a bridge gives the summary of a site.
func TestNoBridge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newOffice(t, func(o *office) {
			o.far.Store(false)
			err := o.bridge.Follow(t.Context(), &contentv1.SummaryRequest{Site: true}, nil)
			if !errors.Is(err, ErrNoBridge) {
				t.Errorf("with one site: %v", err)
			}
		})
	})
}

// Fingerprints in any order but the right one, and filters where fingerprints were asked for, are refused.
func TestExactBases(t *testing.T) {
	good := encodeExact([]uint64{7, 3, 5})
	if f, err := decodeBase(good); err != nil || !f.contains(3) || !f.contains(7) || f.contains(4) {
		t.Fatalf("%+v, %v", f, err)
	}
	for name, b := range map[string][]byte{
		"twice":     append(slices.Clone(good), good[len(good)-8:]...),
		"cut":       good[:len(good)-1],
		"none":      good[:exactHeader],
		"backwards": slices.Concat(good[:2], good[10:18], good[2:10]),
	} {
		if _, err := decodeBase(b); !errors.Is(err, errBase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	filter, err := encodeBase(wide, []uint64{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	p := NewPeers(nil, nil)
	p.union = &union{site: NewPublisher(0), counts: map[uint64]uint16{}}
	part := &contentv1.SummaryPart{Epoch: 1, BaseSize: uint64(len(filter)), Base: filter}
	if err := p.take(p.add(peer.ID{1}, false), part); !errors.Is(err, errBase) {
		t.Errorf("a filter where fingerprints were asked for: %v", err)
	}
}
