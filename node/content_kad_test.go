package node

import (
	"testing"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate"
)

// TestKadComesAndGoes: a node belongs to the DHT only while the mesh is of the kind that needs it.
func TestKadComesAndGoes(t *testing.T) {
	noLeaks(t)
	n := executing(t, t.TempDir())
	x := n.Node.content.company.Load()
	size := locate.Kad
	y := &company{summary: x.summary, onehop: x.onehop, both: x.both, kad: x.kad, kind: func() locate.Kind { return size }}
	if x.kind() != locate.Summaries || x.results() != locate.Locator(x.summary) || x.large() != locate.Locator(x.onehop) || x.kad.opened() != nil {
		t.Error("a node by itself does not find by summaries")
	}
	first := y.results()
	if first != locate.Locator(x.kad.opened()) || y.results() != first || y.large() != first {
		t.Errorf("a large mesh is searched by %T, and large blobs by %T", y.results(), y.large())
	}
	size = locate.OneHop
	y.kad.leave()
	if y.results() != locate.Locator(x.onehop) || y.large() != locate.Locator(x.onehop) || y.kad.opened() != nil {
		t.Errorf("a mesh that has shrunk is searched by %T, and large blobs by %T", y.results(), y.large())
	}
	size = locate.OneHopNear
	if y.results() != locate.Locator(x.both) || y.large() != locate.Locator(x.onehop) {
		t.Errorf("a large site of several is searched by %T, and large blobs by %T", y.results(), y.large())
	}
	key := x.keyer.Result(digest.SHA256.Of([]byte("an action")), n.hostRoot())
	if err := y.results().Announce(t.Context(), []cid.Key{key}); err != nil || x.summary.Publisher.Len() != 1 {
		t.Errorf("its bridges do not learn of what it has: %v", err)
	}
	size = locate.Kad
	if again := y.results(); again == first || again != locate.Locator(x.kad.opened()) {
		t.Errorf("one that has grown again is searched by %T", again)
	}
	n.stop()
	if y.results() != locate.Locator(x.onehop) {
		t.Error("the DHT begins again after the node's end")
	}
}
