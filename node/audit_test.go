package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// disputes are the actions about which members disagree, as ana sees it.
func (p *pair) disputes(t testing.TB) []*controlv1.Dispute {
	t.Helper()
	answer, err := contentAnswers{node: p.ana.Node}.Disputes(t.Context(), &controlv1.DisputesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Disputes
}

// TestAudit has ana make again what ben made for her, as soon as she is idle. What is the same is signed by both; what
// differs is evidence, status tells of it, and from then on her own result is the one she gives.
func TestAudit(t *testing.T) {
	p := newPair(t, "mesh.audit=100")
	auditor := p.ana.machine.auditor
	honest := p.ana.action(t, "cat in > out")
	p.ana.executed(t, honest)
	p.free()
	eventually(t, "the honest one was compared", func() bool { return auditor.compared.Load() == 1 })
	if auditor.disputed.Load() != 0 || len(p.disputes(t)) != 0 {
		t.Error("equal results are in dispute")
	}

	if later := p.ana.why(t, honest.Hex()).Entry.Remarks; len(later) != 1 || later[0].Text != "made by ben and by ana: the same outputs" {
		t.Errorf("why says later: %v", later)
	}

	p.occupy(t)
	odd := p.ana.action(t, "cat /proc/sys/kernel/random/uuid > out")
	of := p.ana.executed(t, odd)
	if of.Result.ExecutionMetadata.GetWorker() != "ben" {
		t.Fatalf("%v", of)
	}
	p.free()
	eventually(t, "the odd one was compared", func() bool { return auditor.compared.Load() == 2 })
	eventually(t, "ana gives her own result", func() bool {
		again := p.ana.executed(t, odd)
		return again.CachedResult && again.Result.OutputFiles[0].Digest.Hash != of.Result.OutputFiles[0].Digest.Hash
	})
	eventually(t, "her own word is kept beside ben's", func() bool { return len(p.disputes(t)) > 0 })
	if all := p.disputes(t); len(all) != 1 || len(all[0].Claims) != 2 || !slices.Equal(all[0].Outputs, []string{"out"}) || !strings.HasPrefix(all[0].Action, odd.Hex()) {
		t.Errorf("disputes: %v", all)
	}
	s := p.ana.Snapshot().Mesh
	if s.Compared != 2 || s.Disputed != 1 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Fix, "disputes") {
		t.Errorf("status: %v", s)
	}
}

// lies has ben tell the mesh of a result of an action that he made up.
func (p *pair) lies(t testing.TB, d digest.Digest) {
	t.Helper()
	made := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: p.ben.put(t, "a lie").Proto()}}}
	root := p.ben.hostRoot()
	if err := p.ben.results.cache.Put(t.Context(), actioncache.Key{Action: d, Root: root}, made); err != nil {
		t.Fatal(err)
	}
	if err := p.ben.Node.content.publish(t.Context(), &action.Action{Digest: d}, root, made); err != nil {
		t.Fatal(err)
	}
	ana := p.ana.Node.content.company.Load()
	eventually(t, "ana knows that ben has it", func() bool { return len(ana.holders([]cid.Key{ana.keyer.Result(d, root)})[0]) > 0 })
}

// TestAuditOfFound has ana make again what she did not have run but found at ben, of inputs that only ben has, and what ben made up.
func TestAuditOfFound(t *testing.T) {
	noLeaks(t)
	p := newPair(t, "mesh.audit=100")
	p.free()
	auditor := p.ana.machine.auditor
	honest := p.ben.action(t, "cat in > out; echo honest")
	p.ben.executed(t, honest)
	p.ana.finds(t, honest)
	eventually(t, "the honest one was compared", func() bool { return auditor.compared.Load() == 1 })
	if auditor.disputed.Load() != 0 || len(p.disputes(t)) != 0 {
		t.Error("equal results are in dispute")
	}

	made := p.ben.action(t, "cat in > out; echo made up")
	p.lies(t, made)
	p.ana.action(t, "cat in > out; echo made up")
	if lie, found := digest.SHA256.Of([]byte("a lie")), p.ana.finds(t, made); found.OutputFiles[0].Digest.Hash != lie.Hex() {
		t.Fatalf("%v", found)
	}
	eventually(t, "what he made up was compared", func() bool { return auditor.disputed.Load() == 1 })
	if later := p.ana.why(t, made.Hex()).Entry.Remarks; len(later) != 1 || !strings.HasPrefix(later[0].Text, "made by ben and by ana: the outputs DIFFER") {
		t.Errorf("why says later: %v", later)
	}
	eventually(t, "her own word is kept beside ben's", func() bool { return len(p.disputes(t)) > 0 })
	if all := p.disputes(t); len(all) != 1 || len(all[0].Claims) != 2 || !slices.Equal(all[0].Outputs, []string{"out"}) || !strings.HasPrefix(all[0].Action, made.Hex()) {
		t.Errorf("disputes: %v", all)
	}
	for d, want := range map[digest.Digest]place.Class{honest: place.Fingerprinted, made: place.Local} {
		if class := p.ana.machine.leasing.class(t.Context(), &action.Action{Digest: d, InputRoot: digest.SHA256.Empty()}); class != want {
			t.Errorf("action %s is %v, want %v", d.Short(), class, want)
		}
	}
	again := p.ana.executed(t, made)
	if truth := digest.SHA256.Of([]byte("input")); !again.CachedResult || again.Result.OutputFiles[0].Digest.Hash != truth.Hex() {
		t.Errorf("%v", again)
	}
	p.ana.stop()
	p.ben.stop()
}

// TestNewMembersAreAuditedMore: of a member first met less than a day ago, as one is that nobody knows yet, three times as many
// results are drawn, also after a restart.
func TestNewMembersAreAuditedMore(t *testing.T) {
	c := configured(t, t.TempDir(), "exec.enabled=true", "mesh.audit=40")
	dir := filepath.Join(c.Dir.State, "mesh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	met := func(id peer.ID, ago time.Duration) string {
		at := time.Now().Add(-ago).Format(time.RFC3339)
		return fmt.Sprintf(`{"id": %q, "name": "x", "gossip": "127.0.0.1:1", "met": %q, "since": %q}`, id.String(), at, at)
	}
	old, fresh := peer.ID{1}, peer.ID{2}
	file := fmt.Sprintf(`{"version": 1, "members": [%s, %s]}`, met(old, 25*time.Hour), met(fresh, 23*time.Hour))
	if err := os.WriteFile(filepath.Join(dir, roster.File), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, c)
	if n.machine == nil {
		t.Skip("no sandbox on this machine")
	}
	for id, all := range map[peer.ID]bool{old: false, fresh: true, {3}: true} {
		const most = 1000
		drawn := 0
		for range most {
			if n.machine.auditor.Draw(id) {
				drawn++
			}
		}
		if all != (drawn == most) || drawn == 0 {
			t.Errorf("of member %d %d results of %d are drawn", id[0], drawn, most)
		}
	}
}

// TestAuditsNothing lists when nothing is made again.
func TestAuditsNothing(t *testing.T) {
	n := executing(t, t.TempDir(), slices.Concat(lender, []string{"exec.cores=1", "exec.network=true"})...)
	x := n.machine.auditor
	for range 1000 {
		if x.Draw(peer.ID{1}) {
			t.Fatal("a result is drawn at a rate of 0")
		}
	}
	plain := &action.Action{}
	if !x.Suits(plain) {
		t.Fatal("an ordinary action is not made again")
	}
	for name, request := range map[string]platform.Request{"reads the network": {Network: true}, "another system": {OSFamily: "plan9"}} {
		if x.Suits(&action.Action{Platform: request}) {
			t.Errorf("made again: %s", name)
		}
	}
	if _, err := (lendingAnswers{lending: n.lending}).Pause(t.Context(), &controlv1.PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a paused machine makes nothing again", func() bool { return !x.Suits(plain) })
}
