package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/exec/action"
)

// TestCompletedHedgeIsCompared: ben is slow to give what an action made for ana, and cleo's copy of it wins. Ben's result was here
// already, and differs: status tells of it, both words are evidence, and neither result is given to who asks later. She makes it herself.
func TestCompletedHedgeIsCompared(t *testing.T) {
	p := newPairOf(t, nil, []string{"mesh.upload=64KiB"}) // a second, after the first 8 MiB
	for i := range 5 {                                    // so much is known of how long such actions take
		p.ana.executed(t, p.ana.action(t, fmt.Sprintf("echo %d > out", i)))
	}
	cleo := executing(t, t.TempDir(), slices.Concat(lender, []string{"node.name=cleo", "exec.cores=1"})...)
	cleo.joins(t, p.ana)
	free := cleo.occupied(t)
	odd := p.ana.action(t, "head -c 16M /dev/urandom > out")
	stream := p.ana.opened(t, odd)
	eventually(t, "ben has run it", func() bool { return p.ben.machine.counts.status().Succeeded == 6 })
	free()
	r := response(t, stream)
	if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.Result.ExecutionMetadata.GetWorker() != "cleo" {
		t.Fatalf("%v", r)
	}

	auditor := p.ana.machine.auditor
	eventually(t, "both results were compared", func() bool { return auditor.disputed.Load() == 1 })
	if all := p.disputes(t); len(all) != 1 || len(all[0].Claims) != 2 || !slices.Equal(all[0].Outputs, []string{"out"}) || !strings.HasPrefix(all[0].Action, odd.Hex()) {
		t.Errorf("disputes: %v", all)
	}
	if s := p.ana.Snapshot().Mesh; s.Compared != 1 || s.Disputed != 1 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Fix, "disputes") {
		t.Errorf("status: %v", s)
	}
	e := p.ana.why(t, odd.Hex()).Entry
	if len(e.Remarks) != 1 || e.Remarks[0].Text != "made by cleo and by ben: the outputs DIFFER, see: buildmesh cache disputes" {
		t.Errorf("why says later: %v", e.Remarks)
	}
	results := flightResults{results: p.ana.results, node: p.ana.Node, host: p.ana.hostRoot()}
	if err := results.Put(t.Context(), &action.Action{Digest: odd}, r.Result, true); err != nil {
		t.Error(err)
	}
	if found, err := p.ana.result(t, odd); status.Code(err) != codes.NotFound {
		t.Errorf("it is found all the same: %v, %v", found, err)
	}

	again := p.ana.opened(t, odd)
	eventually(t, "it waits for ana herself", func() bool { return p.ana.machine.leasing.initiator.Waiting() == 1 })
	p.free()
	if r := response(t, again); r.CachedResult || r.Result.GetExecutionMetadata().GetWorker() != "ana" {
		t.Errorf("made again: %v", r)
	}
	if r := p.ana.executed(t, odd); !r.CachedResult || r.Result.GetExecutionMetadata().GetWorker() != "ana" {
		t.Errorf("her own word does not count: %v", r)
	}
}
