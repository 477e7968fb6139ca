package lookup_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/receipt"
)

// signed is a node's receipt about an action, and the key it belongs under.
func (n *node) signed(t *testing.T, name string) ([]byte, cid.Key) {
	t.Helper()
	key := keyer.Result(actionOf(name), root)
	raw, err := n.receipts.Raw([]cid.Key{key})
	if err != nil || len(raw[0]) == 0 {
		t.Fatalf("no receipt: %v", err)
	}
	return raw[0][0], key
}

// has reports whether a node would serve a result at once.
func (n *node) has(t *testing.T, name string) bool {
	t.Helper()
	_, err := n.results.Get(t.Context(), actioncache.Key{Action: actionOf(name), Root: root})
	if err != nil && !errors.Is(err, actioncache.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// A copy is whole, and survives the one it is of.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, mesh, nil)
		w.nodes[0].build(t, "one", "x")
		raw, key := w.nodes[0].signed(t, "one")
		if err := w.nodes[1].lookup.Adopt(t.Context(), raw, key, w.nodes[0].ID); err != nil {
			t.Fatal(err)
		}
		w.nodes[0].Cut()
		if !w.nodes[1].has(t, "one") {
			t.Error("the copy is not whole")
		}
		w.settle(t, 1, 2, actionOf("one"))
		w.want(t, 2, "one", 0)
	})
}

// What is not believed is not adopted.
func TestNotAdopted(t *testing.T) {
	for name, c := range map[string]struct {
		policy receipt.Policy
		change func(w *world, raw []byte, key *cid.Key) []byte
		err    error
	}{
		"by who believes nobody alone": {quorum, func(_ *world, raw []byte, _ *cid.Key) []byte { return raw }, receipt.ErrUntrusted},
		"of a revoked peer": {mesh, func(w *world, raw []byte, _ *cid.Key) []byte {
			w.trust.revoke(w.nodes[0].ID)
			return raw
		}, receipt.ErrUntrusted},
		"under another key": {mesh, func(_ *world, raw []byte, key *cid.Key) []byte {
			*key = keyer.Result(actionOf("other"), root)
			return raw
		}, receipt.ErrInvalid},
		"changed": {mesh, func(_ *world, raw []byte, _ *cid.Key) []byte {
			raw = append([]byte(nil), raw...)
			raw[len(raw)-1] ^= 1
			return raw
		}, receipt.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, c.policy, nil)
			w.nodes[0].build(t, "one", "x")
			raw, key := w.nodes[0].signed(t, "one")
			raw = c.change(w, raw, &key)
			if err := w.nodes[1].lookup.Adopt(t.Context(), raw, key, w.nodes[0].ID); !errors.Is(err, c.err) {
				t.Errorf("adopting: %v", err)
			}
			if w.nodes[1].has(t, "one") {
				t.Error("it is served")
			}
		})
	}
}

// Liar: what was taken on one member's word is not served any more once another's contradicts it; what this
// node made itself is.
func TestContradictedResultIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, mesh, nil)
		w.nodes[0].build(t, "one", "wrong")
		w.settle(t, 0, 2, actionOf("one"))
		w.want(t, 2, "one", 0)
		w.nodes[1].build(t, "one", "right")
		raw, key := w.nodes[1].signed(t, "one")
		for _, at := range []int{2, 0} {
			if err := w.nodes[at].lookup.Adopt(t.Context(), raw, key, w.nodes[1].ID); !errors.Is(err, receipt.ErrUntrusted) {
				t.Errorf("node %d adopts what is in dispute: %v", at, err)
			}
		}
		if w.nodes[2].has(t, "one") || !w.nodes[0].has(t, "one") {
			t.Error("a result in dispute is served, or one's own is not")
		}
		w.want(t, 2, "one")
		w.want(t, 0, "one", 0)
		if evidence, err := w.nodes[2].receipts.Evidence(); err != nil || len(evidence) != 1 || len(evidence[0].Receipts) != 2 {
			t.Errorf("evidence %v, %v", evidence, err)
		}
	})
}
