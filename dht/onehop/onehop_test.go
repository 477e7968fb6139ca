package onehop_test

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/dht/locate/wire"
	"github.com/buildmesh/buildmesh/dht/onehop"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// node is one member with its part of the index.
type node struct {
	*wire.Node
	index   *onehop.Index
	locator *onehop.Locator
}

// nothing knows no results.
type nothing struct{}

func (nothing) Answers(_ context.Context, keys []cid.Key) ([]share.Answer, error) {
	return make([]share.Answer, len(keys)), nil
}

// join makes a mesh; run has the locators tend it, who have seen who is there when it returns. Then it is for a bubble.
func join(t testing.TB, n int, run bool) []*node {
	t.Helper()
	ids := locatetest.IDs(n)
	net := wire.New(ids)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	nodes := make([]*node, n)
	for i, id := range ids {
		x := &node{Node: net.Node(id), index: onehop.NewIndex()}
		x.locator = onehop.New(id, x.index, x, x)
		(&share.Content{Guard: share.NewGuard(wire.Caller, 0), Publisher: summary.NewPublisher(0), Index: x.index,
			OneHop: x.locator, Known: nothing{}}).Register(x.Server)
		nodes[i] = x
	}
	net.Start()
	if run {
		for _, x := range nodes {
			running.Go(func() { x.locator.Run(ctx) })
		}
		synctest.Wait()
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		net.Close()
	})
	return nodes
}

func TestConformance(t *testing.T) {
	locatetest.Run(t, func(t *testing.T, ids []peer.ID) locatetest.World {
		w := locatetest.World{Settle: func(*testing.T) {}}
		for _, x := range join(t, len(ids), false) {
			w.Locators = append(w.Locators, x.locator)
		}
		return w
	})
}

// A key stands at R members, and finding it asks one. Time stands still meanwhile, so nobody is slow.
func TestOneHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := join(t, 12, false)
		keys := locatetest.Keys("one", 200)
		if err := nodes[0].locator.Announce(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		total, most := 0, 0
		for _, x := range nodes {
			total += x.index.Len()
			most = max(most, x.index.Len())
		}
		if total != onehop.R*len(keys) || most > 2*total/len(nodes) {
			t.Errorf("%d records in all, %d at one member", total, most)
		}
		before := calls(nodes)
		nodes[5].locator.Find(t.Context(), keys[:1])
		if n := calls(nodes) - before; n > 1 {
			t.Errorf("%d calls to find one key", n)
		}
		before = calls(nodes)
		nodes[5].locator.Find(t.Context(), keys)
		if n := calls(nodes) - before; n > len(nodes) {
			t.Errorf("%d calls to find %d keys", n, len(keys))
		}
	})
}

func calls(nodes []*node) (n int) {
	for _, x := range nodes {
		n += x.Calls()
	}
	return n
}

// One replica is stopped, another one gone: keys are still found, after one budget at first and at once from then on.
func TestStoppedReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := join(t, 6, false)
		keys := locatetest.Keys("one", 300)
		nodes[0].locator.Announce(t.Context(), keys)
		nodes[1].Freeze()
		defer nodes[1].Thaw()
		nodes[2].Cut()
		for round, want := range []time.Duration{onehop.Budget, 0} {
			began := time.Now()
			found, err := nodes[5].locator.Find(t.Context(), keys)
			if err != nil {
				t.Fatal(err)
			}
			lost := 0
			for _, ids := range found {
				if len(ids) == 0 {
					lost++
				}
			}
			if took := time.Since(began); lost > 0 || took != want {
				t.Errorf("round %d: %d of %d keys are not found after %s, want none after %s", round, lost, len(keys), took, want)
			}
		}
	})
}

func TestExpiryAndBounds(t *testing.T) {
	x := onehop.NewIndex()
	now := time.Now()
	keys := locatetest.Keys("one", 3)
	ids := locatetest.IDs(onehop.MaxProviders + 5)
	for i, id := range ids {
		x.Note(id, keys[:1], now.Add(time.Duration(i)*time.Second-time.Minute))
	}
	found := x.Find(peer.ID{}, keys)
	if len(found[0]) != onehop.MaxProviders || found[0][0] != ids[len(ids)-1] {
		t.Errorf("%d providers, the first is %v", len(found[0]), found[0][0])
	}
	x.Note(ids[0], keys[1:2], now.Add(-onehop.TTL-time.Second))
	if found := x.Find(peer.ID{}, keys[1:2]); len(found[0]) != 0 {
		t.Error("an expired record is found")
	}
	x.Expire(now)
	x.Drop(ids[len(ids)-1])
	if n := x.Len(); n != onehop.MaxProviders-1 {
		t.Errorf("%d records left", n)
	}
}

// records is how many records some nodes have noted.
func records(nodes []*node) (n int) {
	for _, x := range nodes {
		n += x.index.Len()
	}
	return n
}

// Members that go away take nothing along for long.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := join(t, 8, true)
		keys := locatetest.Keys("one", 200)
		nodes[0].locator.Announce(t.Context(), keys)
		for _, x := range nodes[1:4] {
			x.Cut()
		}
		left := append(nodes[4:], nodes[0])
		before := records(left)
		time.Sleep(onehop.Grace - time.Second) // most come back
		if n := records(left); n != before || n >= onehop.R*len(keys) {
			t.Errorf("%d records soon after three left, want %d still", n, before)
		}
		time.Sleep(15 * time.Second)
		if n := records(left); n != onehop.R*len(keys) {
			t.Errorf("%d records after three left, want %d", n, onehop.R*len(keys))
		}
		time.Sleep(2 * onehop.TTL)
		if found, err := nodes[5].locator.Find(t.Context(), keys); err != nil || len(found[0]) != 1 {
			t.Errorf("after twice the TTL: %v, %v", found[0], err)
		}
	})
}

// A member that lost what it knew has it back from another it shares every key with, long before anything is announced again.
func TestCompare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := join(t, onehop.R, true)
		keys := locatetest.Keys("one", 200)
		nodes[0].locator.Announce(t.Context(), keys)
		nodes[1].index.Drop(nodes[0].ID)
		time.Sleep(onehop.Compare - time.Second)
		if n := nodes[1].index.Len(); n != 0 {
			t.Errorf("%d records before it compared", n)
		}
		time.Sleep(10 * time.Second)
		if n := nodes[1].index.Len(); n != len(keys) {
			t.Errorf("%d records after it compared, want %d", n, len(keys))
		}
	})
}

// Who was away for less than Grace is told within seconds of what was announced meanwhile, and again of what it had, for it may
// have lost that; those who stayed are told nothing.
func TestBackWithinGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := join(t, onehop.R+1, true)
		keys := locatetest.Keys("one", 400)
		nodes[0].locator.Announce(t.Context(), keys[:200])
		back := nodes[onehop.R]
		belongs := back.index.Len()
		back.SetAlive(0)
		time.Sleep(onehop.Settled)
		back.index.Drop(nodes[0].ID)
		nodes[0].locator.Announce(t.Context(), keys[200:])
		stayed := nodes[1].Calls() + nodes[2].Calls()
		back.SetAlive(onehop.Settled)
		time.Sleep(10 * time.Second)
		if n := back.index.Len(); n <= belongs || n > 2*len(keys)*onehop.R/len(nodes) {
			t.Errorf("%d of %d keys were told to who came back, %d of the first half before it went", n, len(keys), belongs)
		}
		for _, k := range keys {
			if keeper := nodes[0].locator.Keeper(k); keeper == back.ID && len(back.index.Find(peer.ID{}, []cid.Key{k})[0]) == 0 {
				t.Errorf("who came back does not know key %x, which belongs to it first", k[:4])
			}
		}
		if n := nodes[1].Calls() + nodes[2].Calls() - stayed; n != 0 {
			t.Errorf("those who stayed were called %d times", n)
		}
		told := back.Calls()
		time.Sleep(time.Minute)
		if n := back.Calls() - told; n != 0 {
			t.Errorf("who came back was told %d times more", n)
		}
	})
}

// Keys belong to nobody who has just come, and are told to who has settled within seconds.
func TestSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := join(t, 4, true)
		fresh := nodes[3]
		fresh.SetAlive(onehop.Settled - time.Second)
		time.Sleep(10 * time.Second) // the others have seen that it is one less
		keys := locatetest.Keys("one", 200)
		nodes[0].locator.Announce(t.Context(), keys)
		if old, n := records(nodes[:3]), fresh.index.Len(); old != onehop.R*len(keys) || n != 0 {
			t.Errorf("%d records at who has settled, %d at who has not", old, n)
		}
		fresh.SetAlive(onehop.Settled)
		time.Sleep(10 * time.Second)
		if n := fresh.index.Len(); n < len(keys)/2 {
			t.Errorf("%d of %d keys were told to who has settled", n, len(keys))
		}
	})
}

// One peer fills no more of an index than its share.
func TestOnePeerIsBounded(t *testing.T) {
	x, now := onehop.NewIndex(), time.Now()
	var k cid.Key
	for n := range uint64(onehop.MaxPerPeer + 1) {
		binary.BigEndian.PutUint64(k[:], n)
		x.Note(peer.ID{1}, []cid.Key{k}, now)
	}
	x.Note(peer.ID{2}, []cid.Key{k}, now)
	if n := x.Len(); n != onehop.MaxPerPeer+1 {
		t.Errorf("%d records are noted, want %d of one peer and 1 of another", n, onehop.MaxPerPeer)
	}
}

var _ locate.Locator = (*onehop.Locator)(nil)
