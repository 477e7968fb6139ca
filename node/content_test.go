package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/distance"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/mesh/trust"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// joins takes a node into the mesh of another and waits until both have each other, at most 30 s.
func (s *started) joins(t testing.TB, steward *started) {
	t.Helper()
	invited, err := meshAnswers{node: steward.Node}.Invite(t.Context(), &controlv1.InviteRequest{Uses: 1, Lifetime: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (meshAnswers{node: s.Node}).Join(t.Context(), &controlv1.JoinRequest{Code: invited.Code}); err != nil {
		t.Fatal(err)
	}
	s.sees(t, steward)
	steward.sees(t, s)
}

// sees waits until a node has another one as alive, at most 30 s.
func (s *started) sees(t testing.TB, other *started) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for version := uint64(0); ; {
		now, err := s.mesh.presence.Roster.Next(ctx, version)
		if err != nil {
			t.Fatalf("%s does not see %s: %v", s.config.Node.Name, other.config.Node.Name, s.mesh.presence.State())
		}
		if m, found := now.Get(other.identity.ID()); found && m.State == roster.Alive {
			return
		}
		version = now.Version
	}
}

// knows waits until a node's summaries say that others have so many results, at most 30 s.
func (s *started) knows(t testing.TB, of *started, action digest.Digest) {
	t.Helper()
	x := s.Node.content.company.Load()
	key := x.keyer.Result(action, of.hostRoot())
	eventually(t, "the summary has come", func() bool {
		found, err := x.summary.Find(t.Context(), []cid.Key{key})
		return err == nil && len(found[0]) > 0
	})
}

// TestSecondNodeHits runs an action on one node; the other one has its result, with every byte, also when the first is gone.
func TestSecondNodeHits(t *testing.T) {
	noLeaks(t)
	ana, ben := executing(t, t.TempDir(), "node.name=ana", "mesh.no_share=*.key"), executing(t, t.TempDir(), "node.name=ben")
	early := ana.action(t, "cat in > out; echo before anybody joined")
	ana.executed(t, early)
	ben.joins(t, ana)
	action, failing := ana.action(t, "cat in > out; echo said"), ana.action(t, "exit 3")
	if r := ana.executed(t, action); r.CachedResult || r.Result.GetExitCode() != 0 {
		t.Fatalf("first: %v", r)
	}
	ana.executed(t, failing)
	own := ana.action(t, "true made by a client itself")
	if _, err := repb.NewActionCacheClient(ana.conn).UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
		ActionDigest: own.Proto(), ActionResult: &repb.ActionResult{StdoutRaw: []byte("mine")},
	}); err != nil {
		t.Fatal(err)
	}
	ben.knows(t, ana, action)
	ben.knows(t, ana, early)

	ben.finds(t, early)
	ben.action(t, "cat in > out; echo said") // a client uploads what it asks for
	hit := ben.executed(t, action)
	if !hit.CachedResult || hit.Result.ExecutionMetadata.GetWorker() != "ana" {
		t.Fatalf("on the second node: %v", hit)
	}
	for _, d := range []digest.Digest{early, action} {
		if r := ben.finds(t, d); len(r.OutputFiles) != 1 {
			t.Errorf("result of %s: %v", d.Short(), r)
		}
	}
	for name, d := range map[string]digest.Digest{"of a failure": failing, "a client's own": own} {
		if r, err := ben.result(t, d); status.Code(err) != codes.NotFound {
			t.Errorf("a result %s crossed the mesh: %v, %v", name, r, err)
		}
	}
	if ben.results.found.Load() != 2 {
		t.Errorf("%d results were found in the mesh, want 2", ben.results.found.Load())
	}
	listed, err := contentAnswers{node: ben.Node}.List(t.Context(), &controlv1.ListRequest{Action: action.Hex()[:8]})
	if err != nil || len(listed.Results) != 1 || listed.Results[0].Signer != "ana" || !listed.Results[0].Complete ||
		!slices.Equal(listed.Results[0].Providers, []string{"ana"}) {
		t.Errorf("listed: %v, %v", listed, err)
	}
	shared, err := contentAnswers{node: ben.Node}.Sharing(t.Context(), &controlv1.SharingRequest{})
	if err != nil || shared.Results != 2 || shared.Alone != 0 || len(shared.Members) != 1 || shared.Members[0].Name != "ana" ||
		shared.Members[0].Signed != 2 || shared.Members[0].Provided != 2 {
		t.Errorf("shared: %v, %v", shared, err)
	}
	ben.pins(t)
	ana.stop()
	if r, err := ben.result(t, action); err != nil || ben.missing(t, digest.SHA256.Of([]byte("input"))) {
		t.Errorf("after the first node is gone: %v, %v", r, err)
	}
	ben.stop()
}

// TestOtherSiteHits: what one office has made is found and fetched from another one, of which each follows the bridges only.
func TestOtherSiteHits(t *testing.T) {
	ana, ben := executing(t, t.TempDir(), "node.name=ana", "mesh.site=berlin"), executing(t, t.TempDir(), "node.name=ben", "mesh.site=paris")
	defer ben.stop()
	defer ana.stop()
	ben.joins(t, ana)
	for _, s := range []*started{ana, ben} {
		other := ben
		if s == ben {
			other = ana
		}
		at := s.sites()
		if _, far := at.Far(other.identity.ID()); !far || !at.Bridge() || len(at.Near()) != 0 {
			t.Errorf("%s: %+v stands among %+v", s.config.Node.Name, at.Self(), at.All.Members())
		}
	}
	action := ana.action(t, "cat in > out; echo said")
	ana.executed(t, action)
	ben.knows(t, ana, action)
	if near := ben.Node.content.company.Load().summary.Peers.Near([]cid.Key{ben.Node.content.company.Load().keyer.Result(action, ana.hostRoot())}); len(near[0]) != 0 {
		t.Errorf("%d peers of another site are followed as near ones", len(near[0]))
	}
	if r := ben.finds(t, action); len(r.OutputFiles) != 1 {
		t.Fatalf("result of another site: %v", r)
	}
	listed, err := contentAnswers{node: ben.Node}.List(t.Context(), &controlv1.ListRequest{})
	if err != nil || len(listed.Results) != 1 || !slices.Equal(listed.Results[0].Providers, []string{"ana"}) {
		t.Errorf("listed: %v, %v", listed, err)
	}
	if d := digest.SHA256.Of([]byte("input")); ben.missing(t, d) {
		t.Errorf("the output %s did not come", d.Short())
	}
	ben.spares(t, ana)
}

// spares has a node not ask the site of the other one for actions of a kind that it runs sooner itself, while it asks for
// what it does not know.
func (s *started) spares(t *testing.T, other *started) {
	t.Helper()
	for i := range 5 {
		s.executedFor(t, "//app:it", s.action(t, fmt.Sprintf("echo %d > out", i)))
	}
	x := s.Node.content.company.Load()
	for range distance.Samples { // the answers there were are nothing beside these
		x.distant.Answered(other.sites().Self().Site, time.Hour)
	}
	action := other.action(t, "echo made at the other site > out")
	other.executed(t, action)
	s.knows(t, other, action)
	q := &repb.GetActionResultRequest{ActionDigest: action.Proto()}
	if r, err := repb.NewActionCacheClient(s.conn).GetActionResult(about(t, "//app:it"), q); status.Code(err) != codes.NotFound {
		t.Errorf("a result that takes longer to fetch than to make: %v, %v", r, err)
	}
	s.action(t, "echo made at the other site > out") // its blobs are here too
	if r := s.executedFor(t, "//app:it", action); r.CachedResult || r.Status.GetCode() != 0 {
		t.Errorf("an action that takes longer to fetch than to run: %v", r)
	}
	if n := x.lookup.Stat().Spared; n != 2 {
		t.Errorf("the other site was spared %d times, want 2", n)
	}
}

// pins keeps a tree with a file that results have which ana made, one that nobody made, and something that is no tree.
func (s *started) pins(t *testing.T) {
	t.Helper()
	pin := func(data []byte) (*controlv1.PinResponse, error) {
		d := digest.SHA256.Of(data)
		if err := s.Node.store.Put(t.Context(), d, data); err != nil {
			t.Fatal(err)
		}
		return contentAnswers{node: s.Node}.Pin(t.Context(), &controlv1.PinRequest{Name: d.String()})
	}
	for name, ana := range map[string][]string{"input": {"ana"}, "what nobody made": nil} {
		of := digest.SHA256.Of([]byte(name))
		if err := s.Node.store.Put(t.Context(), of, []byte(name)); err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(&repb.Directory{Files: []*repb.FileNode{{Name: "x", Digest: of.Proto()}}})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := pin(data); err != nil || !slices.Equal(r.Signers, ana) || !slices.Equal(r.Providers, ana) {
			t.Errorf("pinned a tree with %s: %v, %v", name, r, err)
		}
	}
	if _, err := pin([]byte("no tree")); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "not the root of a tree") {
		t.Errorf("pinned no tree: %v", err)
	}
	_, err := contentAnswers{node: s.Node}.Pin(t.Context(), &controlv1.PinRequest{Name: "//nobody:made"})
	if status.Code(err) != codes.NotFound || status.Convert(err).Message() != "nothing built //nobody:made through this node: build it with Bazel" {
		t.Errorf("pinned what nobody made: %v", err)
	}
}

// TestPrivateResultsStay: a result with an output that matches a pattern is neither told nor given, nor are its blobs.
func TestPrivateResultsStay(t *testing.T) {
	ana, ben := executing(t, t.TempDir(), "mesh.no_share=o*t"), executing(t, t.TempDir())
	defer ben.stop()
	defer ana.stop()
	ben.joins(t, ana)
	secret := ana.action(t, "echo a secret > out")
	ana.executed(t, secret)
	if r, err := ben.result(t, secret); status.Code(err) != codes.NotFound {
		t.Errorf("a private result crossed the mesh: %v, %v", r, err)
	}
	x := ana.Node.content.company.Load()
	signed, err := ana.Node.content.receipts.Raw([]cid.Key{x.keyer.Result(secret, ana.hostRoot())})
	if err != nil || len(signed[0]) != 0 || x.summary.Publisher.Len() != 0 {
		t.Errorf("of a private result %d receipts are signed and %d results announced, %v", len(signed[0]), x.summary.Publisher.Len(), err)
	}
	d := digest.SHA256.Of([]byte("a secret\n"))
	if ana.missing(t, d) {
		t.Fatal("the first node does not have it itself")
	}
	missing, err := ben.Node.content.company.Load().fetcher.Fetch(t.Context(), []digest.Digest{d}, nil)
	if err != nil || len(missing) != 1 {
		t.Errorf("a private blob was given: missing %v, %v", missing, err)
	}
}

// TestRevokedResultsAreDropped: what was taken from a member that is turned out is served no more, but for what came before
// the time that whoever does it names. A node that is killed before it has dropped it does so when it starts again.
func TestRevokedResultsAreDropped(t *testing.T) {
	for name, c := range map[string]struct {
		since  *timestamppb.Timestamp
		killed bool // ana learns of it, and is not there any more when it should drop
		kept   bool
	}{
		"in everything": {},
		"since before":  {since: timestamppb.New(time.Now().Add(-time.Hour))},
		"since later":   {since: timestamppb.New(time.Now().Add(time.Hour)), kept: true},
		"killed":        {killed: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ana, ben := executing(t, dir, "node.name=ana"), executing(t, t.TempDir(), "node.name=ben")
			defer func() { ana.stop() }()
			defer ben.stop()
			ben.joins(t, ana)
			action := ben.action(t, "echo made by ben > out")
			ben.executed(t, action)
			ana.knows(t, ben, action)
			ana.finds(t, action)
			if !c.killed {
				x := ana.Node.content.company.Load()
				of := x.keyer.Blob(digest.SHA256.Of([]byte("what ben says he has")))
				x.noted.Note(ben.identity.ID(), []cid.Key{of}, time.Now())
				defer func() {
					if found := x.noted.Find(ana.identity.ID(), []cid.Key{of}); len(found[0]) != 0 {
						t.Error("the index names a revoked peer still")
					}
				}()
				q := &controlv1.RevokeRequest{Peer: ben.identity.ID().String(), Since: c.since}
				if _, err := (meshAnswers{node: ana.Node}).Revoke(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			} else {
				ana.stop()
				seat, err := member.Open(filepath.Join(ana.config.Dir.State, "mesh"), ana.identity, member.Options{Name: "ana"})
				if err != nil {
					t.Fatal(err)
				}
				if err := seat.Amend("", trust.Amendment{Revoke: []trust.Revocation{{Peer: ben.identity.ID(), Since: trust.Always}}}); err != nil {
					t.Fatal(err)
				}
				ana = executing(t, dir, "node.name=ana")
			}
			want := 0
			if c.kept {
				want = 1
			}
			x := ana.Node.content.company.Load()
			receipts, err := ana.Node.content.receipts.Raw([]cid.Key{x.keyer.Result(action, ben.hostRoot())})
			if err != nil || len(receipts[0]) != want {
				t.Errorf("%d receipts of a revoked peer are kept, want %d, %v", len(receipts[0]), want, err)
			}
			if _, err := ana.result(t, action); c.kept != (err == nil) || !c.kept && status.Code(err) != codes.NotFound {
				t.Errorf("the result a revoked peer made: %v", err)
			}
			if n := x.summary.Publisher.Len(); n != 0 {
				t.Errorf("%d results are announced that nobody would believe", n)
			}
		})
	}
}

// TestWhoSentOtherBytesIsNamed: what a member's disk has changed is thrown away, and status says where it came from.
func TestWhoSentOtherBytesIsNamed(t *testing.T) {
	ana, ben := executing(t, t.TempDir(), "node.name=ana"), executing(t, t.TempDir(), "node.name=ben")
	defer ben.stop()
	defer ana.stop()
	ben.joins(t, ana)
	action := ben.action(t, "head -c 2000000 /dev/zero > out")
	output := ben.executed(t, action).Result.OutputFiles[0].Digest.Hash
	files, err := filepath.Glob(filepath.Join(ben.config.Dir.Cache, "store", "blobs", "*", "*"+output))
	if err != nil || len(files) != 1 {
		t.Fatalf("the output is in %q, %v", files, err)
	}
	rots(t, files[0])
	ana.knows(t, ben, action)
	if said := ana.Node.content.problems(); len(said) != 0 {
		t.Errorf("before anything was fetched: %v", said)
	}
	var said []*controlv1.Problem
	eventually(t, "ana was sent other bytes", func() bool {
		if r, err := ana.result(t, action); status.Code(err) != codes.NotFound {
			t.Fatalf("a result whose output is damaged: %v, %v", r, err)
		}
		said = ana.Node.content.problems()
		return len(said) > 0
	})
	if len(said) != 1 || !strings.HasPrefix(said[0].Text, "ben sent other bytes than it was asked for") || said[0].Fix != "buildmesh revoke ben" {
		t.Errorf("status says %v", said)
	}
}

// rots changes a file as a failing disk does, which tells nobody.
func rots(t *testing.T, path string) {
	t.Helper()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("rot"), 1000); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, before.ModTime()); err != nil {
		t.Fatal(err)
	}
}
