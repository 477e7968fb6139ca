package node

import (
	"slices"
	"strings"
	"testing"

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
