package lookup_test

import (
	"errors"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/receipt"
)

// What contradicts a result that was taken before ends its being served, and whoever stores either of the two after that, on
// another's word, serves nothing.
func TestNotedContradiction(t *testing.T) {
	w := newWorld(t, 3, mesh, nil)
	taker, key := w.nodes[2], actioncache.Key{Action: actionOf("one"), Root: root}
	made := func(by int, content string) []byte {
		w.nodes[by].publish(t, "one", &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "a", Digest: taker.put(t, content)}}})
		raw, _ := w.nodes[by].signed(t, "one")
		return raw
	}
	one, other := made(0, "one thing"), made(1, "another")
	if err := taker.lookup.Accept(t.Context(), one, key); err != nil || !taker.has(t, "one") {
		t.Fatalf("the first one is not served: %v", err)
	}
	if err := taker.lookup.Note(other, key); err != nil || taker.has(t, "one") {
		t.Errorf("it is served though another was noted: %v", err)
	}
	if evidence, err := taker.receipts.Evidence(); err != nil || len(evidence) != 1 || len(evidence[0].Receipts) != 2 {
		t.Errorf("evidence %v, %v", evidence, err)
	}
	for _, raw := range [][]byte{one, other} {
		if err := taker.lookup.Accept(t.Context(), raw, key); err != nil || taker.has(t, "one") {
			t.Errorf("it is served when it comes again: %v", err)
		}
	}
	w.want(t, 2, "one")
}

// What is noted alone is not served, nor is what nobody answers for noted.
func TestNotedAlone(t *testing.T) {
	w := newWorld(t, 3, mesh, nil)
	w.nodes[0].build(t, "one", "x")
	raw, key := w.nodes[0].signed(t, "one")
	taker := w.nodes[2]
	if err := taker.lookup.Note(raw, actioncache.Key{Action: actionOf("two"), Root: root}); !errors.Is(err, receipt.ErrInvalid) {
		t.Errorf("of another action: %v", err)
	}
	w.trust.revoke(w.nodes[0].ID)
	if err := taker.lookup.Note(raw, actioncache.Key{Action: actionOf("one"), Root: root}); !errors.Is(err, receipt.ErrUntrusted) || taker.receipts.Quarantined(key) {
		t.Errorf("of one who was turned out: %v", err)
	}
	w.trust.revoked[w.nodes[0].ID] = false
	if err := taker.lookup.Note(raw, actioncache.Key{Action: actionOf("one"), Root: root}); err != nil || taker.has(t, "one") {
		t.Errorf("it is served: %v", err)
	}
}
