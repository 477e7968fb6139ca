package node

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// spare is what a node would share with its mesh, told by hand, with the kind of locator that a test says.
func (s *started) spare(t *testing.T, kind *locate.Kind) *company {
	t.Helper()
	x := s.Node.content.newCompany()
	x.kind = func() locate.Kind { return *kind }
	t.Cleanup(func() {
		x.lookup.Close()
		x.copies.Close()
		x.kad.close()
	})
	return x
}

// TestLostResultsAreForgotten: a result of which a blob has gone from the store is announced no more, and not again when the
// node is restarted or goes over to another locator.
func TestLostResultsAreForgotten(t *testing.T) {
	n := executing(t, t.TempDir())
	defer n.stop()
	whole, broken := n.action(t, "echo whole > out"), n.action(t, "head -c 2000000 /dev/zero > out")
	n.executed(t, whole)
	output := n.executed(t, broken).Result.OutputFiles[0].Digest.Hash
	kind := locate.Summaries
	x := n.spare(t, &kind)
	keys := []cid.Key{x.keyer.Result(whole, n.hostRoot()), x.keyer.Result(broken, n.hostRoot())}
	if err := x.lookup.AnnounceAll(t.Context()); err != nil || x.summary.Publisher.Len() != 2 {
		t.Fatalf("%d results are announced, want 2, %v", x.summary.Publisher.Len(), err)
	}
	tender := newTender(n.Node.content, x)
	tender.round(t.Context())
	if told := x.summary.Publisher.Len(); told != 2 {
		t.Fatalf("%d results are announced while both are whole", told)
	}
	files, err := filepath.Glob(filepath.Join(n.config.Dir.Cache, "store", "blobs", "*", "*"+output))
	if err != nil || len(files) != 1 {
		t.Fatalf("the output is in %q, %v", files, err)
	}
	rots(t, files[0])
	if _, err := n.Node.store.Verify(t.Context(), cas.VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	tender.round(t.Context())
	if told := x.summary.Publisher.Len(); told != 1 {
		t.Errorf("%d results are announced, one of which is not whole", told)
	}
	for d, want := range map[digest.Digest]bool{whole: true, broken: false} {
		listed, err := contentAnswers{node: n.Node}.List(t.Context(), &controlv1.ListRequest{Action: d.Hex()})
		if err != nil || len(listed.Results) != 1 || listed.Results[0].Complete != want {
			t.Errorf("listed %v, want one that is here: %v, %v", listed, want, err)
		}
	}
	if shared, err := (contentAnswers{node: n.Node}).Sharing(t.Context(), &controlv1.SharingRequest{}); err != nil || shared.Results != 2 || shared.Alone != 2 {
		t.Errorf("of this node alone: %v, %v", shared, err)
	}

	kind = locate.OneHop
	tender.round(t.Context())
	other := peer.ID{1}
	if found := x.noted.Find(other, keys); len(found[0]) != 1 || len(found[1]) != 0 {
		t.Errorf("the other locator names %v, want this node for the first result only", found)
	}

	kind = locate.Summaries
	y := n.spare(t, &kind)
	if err := n.Node.content.adoptOwn(t.Context(), y); err != nil {
		t.Fatal(err)
	}
	newTender(n.Node.content, y).round(t.Context())
	if told := y.summary.Publisher.Len(); told != 1 {
		t.Errorf("%d results are announced after a restart, one of which is not whole", told)
	}
}

// TestOtherLocatorIsTold: a node that goes over to another locator tells it of all results, to the index and to kad-dht and
// back, and is a part of the DHT no longer than that is used.
func TestOtherLocatorIsTold(t *testing.T) {
	ana, ben := executing(t, t.TempDir(), "node.name=ana"), start(t, configured(t, t.TempDir(), "node.name=ben"))
	defer ben.stop()
	defer ana.stop()
	ben.joins(t, ana)
	ana.executed(t, ana.action(t, "echo said > out"))
	kind := locate.Summaries
	x := ana.spare(t, &kind)
	tender := newTender(ana.Node.content, x)
	keys, err := x.lookup.Keys()
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d results, %v", len(keys), err)
	}
	noted := func() []peer.ID { return ben.Node.content.company.Load().noted.Find(ben.identity.ID(), keys)[0] }
	just := []peer.ID{ana.identity.ID()}

	tender.round(t.Context())
	if len(noted()) != 0 {
		t.Error("the index is told while it is not in use")
	}
	kind = locate.OneHop
	tender.round(t.Context())
	if !slices.Equal(noted(), just) {
		t.Errorf("the index names %v", noted())
	}
	ben.Node.content.company.Load().noted.Drop(ana.identity.ID())
	tender.round(t.Context())
	if len(noted()) != 0 {
		t.Error("the index is told again while it is in use all along")
	}

	ofBen := locate.Kad
	distributed := ben.spare(t, &ofBen).kad.open()
	kind = locate.Kad
	tender.round(t.Context())
	eventually(t, "kad-dht names ana", func() bool {
		found, err := distributed.Find(t.Context(), keys)
		return err == nil && slices.Equal(found[0], just)
	})
	kind = locate.OneHop
	tender.round(t.Context())
	if x.kad.opened() != nil || !slices.Equal(noted(), just) {
		t.Errorf("the index names %v; a part of the DHT: %v", noted(), x.kad.opened() != nil)
	}
}

// TestMeshGoesOverToKad: five members find by summaries; each is restarted to find by kad-dht; what was made before is found
// then too, and what is made afterwards.
func TestMeshGoesOverToKad(t *testing.T) {
	names := []string{"ana", "ben", "cai", "dia", "eve"}
	dirs, members := make([]string, len(names)), make([]*started, len(names))
	begin := func(i int, more ...string) {
		if more = append(more, "node.name="+names[i]); i < 3 {
			members[i] = executing(t, dirs[i], more...)
		} else {
			members[i] = start(t, configured(t, dirs[i], more...))
		}
	}
	for i := range members {
		dirs[i] = t.TempDir()
		if begin(i); i > 0 {
			members[i].joins(t, members[0])
		}
	}
	defer func() {
		for _, m := range members {
			m.stop()
		}
	}()
	early := members[0].action(t, "echo early > out")
	members[0].executed(t, early)
	members[1].knows(t, members[0], early)
	members[1].finds(t, early) // by summaries

	for i := range members {
		members[i].stop()
		begin(i, "mesh.locator=kad")
	}
	for _, m := range members[1:] {
		m.sees(t, members[0])
		members[0].sees(t, m)
	}
	late := members[0].action(t, "echo late > out")
	members[0].executed(t, late)
	cai := members[2]
	if kind := cai.Node.content.company.Load().kind(); kind != locate.Kad {
		t.Fatalf("the kind in use is %d", kind)
	}
	cai.finds(t, early) // by kad-dht
	cai.finds(t, late)
	if told := cai.Node.content.company.Load().summary.Publisher.Len(); told != 0 {
		t.Errorf("%d results were told by a summary", told)
	}
}
