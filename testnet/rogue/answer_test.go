package main

import (
	"errors"
	"slices"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate/wire"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
	"github.com/buildmesh/buildmesh/testnet/sample"
)

// mesh is the one in which the receipts of these tests were made.
const mesh = "ours"

// holding is a rogue that made results of actions, each with an output, and knows nobody.
func holding(t *testing.T, names ...string) (*rogue, []receipt.Statement) {
	t.Helper()
	identity, err := peer.Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{identity: identity}
	if r.seat, err = member.Open(t.TempDir(), identity, member.Options{}); err != nil {
		t.Fatal(err)
	}
	if r.store, err = cas.Open(t.TempDir(), cas.Options{}); err != nil {
		t.Fatal(err)
	}
	r.closing = append(r.closing, r.store.Close)
	t.Cleanup(r.close)
	if r.receipts, err = receipt.Open(t.TempDir(), receipt.Options{}); err != nil {
		t.Fatal(err)
	}
	r.closing = append(r.closing, r.receipts.Close)
	var made []receipt.Statement
	for _, name := range names {
		output := []byte("output of " + name)
		if err := r.store.Put(t.Context(), digest.SHA256.Of(output), output); err != nil {
			t.Fatal(err)
		}
		s := receipt.Statement{Mesh: mesh, Action: digest.SHA256.Of([]byte(name)), Result: &repb.ActionResult{
			OutputFiles: []*repb.OutputFile{{Path: "out", Digest: digest.SHA256.Of(output).Proto()}},
		}}
		signed, err := receipt.Sign(identity, s)
		if err != nil {
			t.Fatal(err)
		}
		key := cid.NewKeyer([]byte(mesh)).Result(s.Action, s.Root)
		if _, err := r.receipts.Put(key, signed); err != nil {
			t.Fatal(err)
		}
		r.keys, made = append(r.keys, key), append(made, s)
	}
	return r, made
}

// shows gives the receipt that a rogue shows in a role when it is asked for the first result it has.
func (r *rogue) shows(t *testing.T, role string) *receipt.Receipt {
	t.Helper()
	raw, err := r.receipts.Raw(r.keys[:1])
	if err != nil {
		t.Fatal(err)
	}
	a := &contentv1.Answer{Receipts: raw[0]}
	if err := roles[role].answer(r, r.keys[0], a); err != nil || len(a.Receipts) != 1 {
		t.Fatalf("%s answers %v, %v", role, a, err)
	}
	shown, err := receipt.Parse(a.Receipts[0])
	if err != nil {
		t.Fatalf("%s: no signature of anybody: %v", role, err)
	}
	return shown
}

// A liar's receipt is good in all but its output, of which the liar has the bytes.
func TestLiar(t *testing.T) {
	r, made := holding(t, "one")
	shown := r.shows(t, "liar")
	if err := shown.Check(mesh, made[0].Action, made[0].Root); err != nil || shown.Executor != r.identity.ID() {
		t.Errorf("the receipt would not be believed: %v", err)
	}
	output, err := digest.FromProto(digest.SHA256, shown.Result.OutputFiles[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if content, err := r.store.Get(t.Context(), output); err != nil || string(content) != "lie\nlie\nlie\nl" {
		t.Errorf("its output is %q, %v", content, err)
	}
	if len(receipt.Compare(shown.Result, made[0].Result)) != 1 {
		t.Error("its output is the right one")
	}
}

// A boaster claims what it has and what it has not, a miser nothing.
func TestClaims(t *testing.T) {
	r, made := holding(t, "one")
	claimed, err := roles["boaster"].claims(r)
	if err != nil || len(claimed) != 1+boasted || claimed[0] != r.keys[0] {
		t.Fatalf("claimed are %d results, %v", len(claimed), err)
	}
	index := r.seat.Index()
	for _, name := range []string{"b1", "b150"} {
		key := cid.NewKeyer(index[:]).Result(sample.Sample{Name: name, Size: 100}.Digest(), made[0].Root)
		if !slices.Contains(claimed, key) {
			t.Errorf("%s is not claimed", name)
		}
	}
	if claimed, err := roles["miser"].claims(r); err != nil || len(claimed) != 0 {
		t.Errorf("a miser claims %d results, %v", len(claimed), err)
	}
	nothing, _ := holding(t)
	if _, err := roles["boaster"].claims(nothing); err == nil {
		t.Error("who has built nothing claims results")
	}
}

// A snoop is given what it knows the digest of, guesses nothing, and is refused.
func TestSnoop(t *testing.T) {
	r, _ := holding(t, "one", "two")
	victim, _ := holding(t, "one")
	net := wire.New([]peer.ID{r.identity.ID(), victim.identity.ID()})
	server, guard := net.Node(victim.identity.ID()).Server, share.NewGuard(wire.Caller, 0)
	share.NewBlobs(victim.store, guard, new(share.Private)).Register(server)
	(&share.Content{Guard: guard, Known: results{victim}}).Register(server)
	net.Start()
	t.Cleanup(net.Close)
	conn, err := net.Node(r.identity.ID()).Bulk(t.Context(), victim.identity.ID())
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := r.certain()
	if err != nil || len(blobs) != 4 {
		t.Fatalf("what it knows of is %v, %v", blobs, err)
	}
	if got, err := snoopAt(t.Context(), conn, conn, blobs, r.keys); err != nil || got != (haul{blobs: 1, results: 1, refused: true}) {
		t.Errorf("it got %+v, %v", got, err)
	}
}

// A thicket is one directory a level, and more of them than anybody takes.
func TestThicket(t *testing.T) {
	r, _ := holding(t, "one")
	shown := r.shows(t, "thicket")
	if len(shown.Result.OutputFiles) != 0 || len(shown.Result.OutputDirectories) != 1 {
		t.Fatalf("its result is %v", shown.Result)
	}
	root, err := digest.FromProto(digest.SHA256, shown.Result.OutputDirectories[0].RootDirectoryDigest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Load(t.Context(), r.store, root, tree.Limits{}); !errors.Is(err, tree.ErrInvalid) {
		t.Errorf("its tree is taken: %v", err)
	}
	grown, err := tree.Load(t.Context(), r.store, root, tree.Limits{MaxNodes: 1 << (levels + 1)})
	if err != nil || len(grown.Directories()) != levels {
		t.Errorf("its tree: %v", err)
	}
}

// The receipts of the others are good too, of something else.
func TestReplayers(t *testing.T) {
	r, made := holding(t, "one", "two")
	if shown := r.shows(t, "replayer"); shown.Check(mesh, made[1].Action, made[1].Root) != nil {
		t.Errorf("a replayer shows the receipt of %s, want %s", shown.Action.Short(), made[1].Action.Short())
	}
	if shown := r.shows(t, "foreigner"); shown.Check(r.identity.ID().String(), made[0].Action, made[0].Root) != nil {
		t.Errorf("a foreigner shows a receipt of mesh %s", shown.Mesh)
	}
	alone, _ := holding(t, "one")
	if err := replay(alone, alone.keys[0], &contentv1.Answer{}); err == nil {
		t.Error("who has one receipt shows another")
	}
}
