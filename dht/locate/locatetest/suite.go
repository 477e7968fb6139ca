package locatetest

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// World is a mesh of nodes by their locators.
type World struct {
	Locators []locate.Locator
	// Settle returns when everything announced and forgotten before has spread.
	Settle func(t *testing.T)
	// IDs are the nodes', where they could not have those asked for.
	IDs []peer.ID
}

// Opener joins one node for each id; the test ends them.
type Opener func(t *testing.T, ids []peer.ID) World

// IDs makes n peer ids.
func IDs(n int) []peer.ID {
	ids := make([]peer.ID, n)
	for i := range ids {
		binary.BigEndian.PutUint64(ids[i][:], uint64(i)+1)
	}
	return ids
}

// Keys makes n keys that no other seed's keys equal.
func Keys(seed string, n int) []cid.Key {
	k := cid.NewKeyer([]byte(seed))
	keys := make([]cid.Key, n)
	for i := range keys {
		keys[i] = k.Blob(digest.SHA256.Of(binary.BigEndian.AppendUint64(nil, uint64(i))))
	}
	return keys
}

// Run runs the suite.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *mesh)
	}{
		{"AnnouncedIsFoundByOthers", announced},
		{"ForgottenIsNotFound", forgotten},
		{"UnknownHasNobody", unknown},
		{"NobodyTwice", twice},
		{"EveryProvider", every},
		{"ManyInOneBatch", many},
		{"AtOnce", atOnce},
	} {
		t.Run(c.name, func(t *testing.T) {
			ids := IDs(4)
			w := open(t, ids)
			if w.IDs != nil {
				ids = w.IDs
			}
			c.run(t, &mesh{World: w, ids: ids})
		})
	}
}

// mesh is a world under test.
type mesh struct {
	World
	ids []peer.ID
}

func (m *mesh) announce(t *testing.T, node int, keys []cid.Key) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Locators[node].Announce(ctx, keys); err != nil {
		t.Fatalf("node %d announces: %v", node, err)
	}
}

func (m *mesh) forget(t *testing.T, node int, keys []cid.Key) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Locators[node].Forget(ctx, keys); err != nil {
		t.Fatalf("node %d forgets: %v", node, err)
	}
}

// find gives what a node finds, sorted.
func (m *mesh) find(t *testing.T, node int, keys []cid.Key) [][]peer.ID {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	found, err := m.Locators[node].Find(ctx, keys)
	if err != nil {
		t.Fatalf("node %d finds: %v", node, err)
	}
	if len(found) != len(keys) {
		t.Fatalf("node %d asked for %d keys, got %d answers", node, len(keys), len(found))
	}
	for _, peers := range found {
		slices.SortFunc(peers, func(a, b peer.ID) int { return slices.Compare(a[:], b[:]) })
	}
	return found
}

// want checks that node finds exactly these providers, given by number, for every key.
func (m *mesh) want(t *testing.T, node int, keys []cid.Key, providers ...int) {
	t.Helper()
	var ids []peer.ID
	for _, p := range providers {
		ids = append(ids, m.ids[p])
	}
	slices.SortFunc(ids, func(a, b peer.ID) int { return slices.Compare(a[:], b[:]) })
	for i, peers := range m.find(t, node, keys) {
		if !slices.Equal(peers, ids) {
			t.Fatalf("node %d finds %d providers of key %d, want nodes %v", node, len(peers), i, providers)
		}
	}
}

func announced(t *testing.T, m *mesh) {
	keys := Keys("one", 20)
	m.announce(t, 0, keys)
	m.Settle(t)
	for node := 1; node < 4; node++ {
		m.want(t, node, keys, 0)
	}
	m.want(t, 0, keys) // a node needs nobody to tell it what it has
}

func forgotten(t *testing.T, m *mesh) {
	keys := Keys("one", 20)
	m.announce(t, 0, keys)
	m.announce(t, 1, keys[:10])
	m.Settle(t)
	m.forget(t, 0, keys)
	m.forget(t, 2, keys) // never announced there
	m.Settle(t)
	m.want(t, 3, keys[:10], 1)
	m.want(t, 3, keys[10:])
	m.announce(t, 0, keys[10:])
	m.Settle(t)
	m.want(t, 3, keys[10:], 0)
}

func unknown(t *testing.T, m *mesh) {
	m.announce(t, 0, Keys("one", 20))
	m.Settle(t)
	m.want(t, 1, Keys("other", 200))
	if found := m.find(t, 1, nil); len(found) != 0 {
		t.Errorf("asked for nothing, got %d answers", len(found))
	}
	m.announce(t, 0, nil)
	m.forget(t, 0, nil)
}

func twice(t *testing.T, m *mesh) {
	keys := Keys("one", 3)
	m.announce(t, 0, append(slices.Clone(keys), keys...))
	m.announce(t, 0, keys)
	m.Settle(t)
	m.want(t, 1, append(slices.Clone(keys), keys...), 0)
}

func every(t *testing.T, m *mesh) {
	keys := Keys("one", 10)
	for node := range 3 {
		m.announce(t, node, keys)
	}
	m.Settle(t)
	m.want(t, 3, keys, 0, 1, 2)
	m.want(t, 1, keys, 0, 2)
}

// many mixes known and unknown keys: every answer stands in its place. They are no more than a locator that sends messages
// for each key can ask for in time, and more than it asks for at once.
func many(t *testing.T, m *mesh) {
	const each = 100 // known keys of each of two nodes, among as many unknown ones
	known, other := Keys("one", 2*each), Keys("other", 2*each)
	m.announce(t, 0, known[:each])
	m.announce(t, 1, known[each:])
	m.Settle(t)
	var mixed []cid.Key
	for i := range known {
		mixed = append(mixed, known[i], other[i])
	}
	for i, peers := range m.find(t, 2, mixed) {
		var ids []peer.ID
		if i%2 == 0 {
			ids = []peer.ID{m.ids[i/(2*each)]}
		}
		if !slices.Equal(peers, ids) {
			t.Fatalf("answer %d names %d peers", i, len(peers))
		}
	}
}

func atOnce(t *testing.T, m *mesh) {
	var all sync.WaitGroup
	sets := make([][]cid.Key, 4)
	for node := range sets {
		sets[node] = Keys(string(rune('a'+node)), 50)
		for part := range 5 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				l, keys := m.Locators[node], sets[node][part*10:part*10+10]
				if err := l.Announce(ctx, keys); err != nil {
					t.Errorf("announce: %v", err)
				}
				if _, err := l.Find(ctx, keys); err != nil {
					t.Errorf("find: %v", err)
				}
			})
		}
	}
	all.Wait()
	m.Settle(t)
	for node := range sets {
		m.want(t, (node+1)%4, sets[node], node)
	}
}
