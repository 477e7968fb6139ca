package memory

import (
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
