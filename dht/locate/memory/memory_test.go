package memory

import (
	"slices"
	"testing"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

func TestConformance(t *testing.T) {
	locatetest.Run(t, func(_ *testing.T, ids []peer.ID) locatetest.World {
		mesh := New()
		w := locatetest.World{Settle: func(*testing.T) {}}
		for _, id := range ids {
			w.Locators = append(w.Locators, mesh.Node(id))
		}
		return w
	})
}

// A chain of a locator that knows nothing, one that fails and the real one is a locator too.
func TestChainConformance(t *testing.T) {
	locatetest.Run(t, func(_ *testing.T, ids []peer.ID) locatetest.World {
		mesh := New()
		w := locatetest.World{Settle: func(*testing.T) {}}
		for _, id := range ids {
			w.Locators = append(w.Locators, locate.Chain{New().Node(id), mesh.Node(id)})
		}
		return w
	})
}

// A switch is a locator too, whichever it has chosen.
func TestSwitchConformance(t *testing.T) {
	locatetest.Run(t, func(_ *testing.T, ids []peer.ID) locatetest.World {
		mesh := New()
		w := locatetest.World{Settle: func(*testing.T) {}}
		for _, id := range ids {
			chosen := mesh.Node(id)
			w.Locators = append(w.Locators, locate.Switch{Choose: func() locate.Locator { return chosen }})
		}
		return w
	})
}

// A switch turns from one call to the next, and tells the one it has chosen only.
func TestSwitchTurns(t *testing.T) {
	first, second := New(), New()
	chosen := first
	a := locate.Switch{Choose: func() locate.Locator { return chosen.Node(peer.ID{1}) }}
	b := locate.Switch{Choose: func() locate.Locator { return chosen.Node(peer.ID{2}) }}
	keys := locatetest.Keys("one", 3)
	finds := func(want bool) {
		t.Helper()
		found, err := b.Find(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, by := range found {
			if is := slices.Equal(by, []peer.ID{{1}}); is != want || !want && len(by) > 0 {
				t.Errorf("key %d: %v", i, by)
			}
		}
	}
	if err := a.Announce(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	finds(true)
	chosen = second
	finds(false)
	if err := a.Announce(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	finds(true)
	if err := a.Forget(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	finds(false)
	chosen = first
	finds(true)
}
