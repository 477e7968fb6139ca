package lookup_test

import (
	"errors"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// revokes has a node hear that another is revoked, and drop what that one signed.
func (w *world) revokes(t *testing.T, at, who int) {
	x, id := w.nodes[at], w.nodes[who].ID
	w.trust.revoke(id)
	_, err := x.receipts.Revoke(map[peer.ID]time.Time{id: {}}, func(s receipt.Statement) error {
		return x.results.Delete(actioncache.Key{Action: s.Action, Root: s.Root})
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRevokedMeanwhile: whatever a result is taken for, and however far that has come when its signer is revoked, it is not
// given, and neither it nor its receipt stays.
func TestRevokedMeanwhile(t *testing.T) {
	ways := map[string]func(w *world, raw []byte, key cid.Key) error{
		"found": func(w *world, _ []byte, _ cid.Key) error {
			_, err := w.nodes[1].lookup.Find(t.Context(), lookup.Query{Action: actionOf("one"), Roots: roots})
			return err
		},
		"accepted": func(w *world, raw []byte, _ cid.Key) error {
			return w.nodes[1].lookup.Accept(t.Context(), raw, actioncache.Key{Action: actionOf("one"), Root: root})
		},
		"adopted": func(w *world, raw []byte, key cid.Key) error {
			return w.nodes[1].lookup.Adopt(t.Context(), raw, key, w.nodes[0].ID)
		},
	}
	moments := map[string]func(w *world, revoke func()){
		"its receipt was checked": func(w *world, revoke func()) { w.trust.said = revoke },
		"its receipt was kept":    func(w *world, revoke func()) { w.nodes[1].results.beforePut = revoke },
		"it was read":             func(w *world, revoke func()) { w.nodes[1].results.afterGet = revoke },
	}
	for way, take := range ways {
		for moment, meddle := range moments {
			if moment == "it was read" && way != "found" {
				continue // nobody is given anything
			}
			t.Run(way+", revoked when "+moment, func(t *testing.T) {
				w := newWorld(t, 2, mesh, nil)
				w.nodes[0].build(t, "one", "x")
				w.settle(t, 0, 1, actionOf("one"))
				raw, key := w.nodes[0].signed(t, "one")
				revoked := false
				meddle(w, func() {
					revoked = true
					w.revokes(t, 1, 0)
				})
				if err := take(w, raw, key); !errors.Is(err, lookup.ErrNotFound) && !errors.Is(err, receipt.ErrUntrusted) {
					t.Errorf("it is taken: %v", err)
				}
				kept, err := w.nodes[1].receipts.Raw([]cid.Key{key})
				if !revoked || w.nodes[1].has(t, "one") || err != nil || len(kept[0]) != 0 {
					t.Errorf("revoked %v; %d receipts are kept, %v", revoked, len(kept[0]), err)
				}
			})
		}
	}
}
