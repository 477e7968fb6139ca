package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/exec/lease"
)

// lets fails the test unless a member holds nothing of a lease: no room, no ticket, no pin beyond so many.
func (s *started) lets(t *testing.T, pinned int64) {
	t.Helper()
	eventually(t, s.config.Node.Name+" holds nothing of a lease", func() bool {
		u := s.machine.leasing.executor.Usage()
		return u.FreeCores == u.Cores && u.FreeBytes == u.Bytes && u.Running == 0 && u.Tickets == 0 && s.Node.store.Stat().Pinned == pinned
	})
}

// TestLeaseBetweenMembers: while an action runs at a member, who asked for it is told where and since when; when its result is
// taken the member lets go of its room and its outputs.
func TestLeaseBetweenMembers(t *testing.T) {
	p := newPair(t)
	pinned := p.ben.Node.store.Stat().Pinned
	stream := p.ana.opened(t, p.ana.action(t, untilEnded+"; cat in > out; echo said"))
	eventually(t, "ben runs it", func() bool { return p.ben.lending.guests.Load() == 1 })
	for told := false; !told; {
		op, err := stream.Recv()
		if err != nil || op.Done {
			t.Fatalf("it is over, and nobody told where it ran: %v, %v", op, err)
		}
		m := new(repb.ExecuteOperationMetadata)
		if err := op.Metadata.UnmarshalTo(m); err != nil {
			t.Fatal(err)
		}
		told = m.Stage == repb.ExecutionStage_EXECUTING && m.PartialExecutionMetadata.GetWorker() == "ben" && m.PartialExecutionMetadata.WorkerStartTimestamp != nil
	}
	if r := endsRun(t, stream); r.Status.GetCode() != 0 || r.Result.ExecutionMetadata.GetWorker() != "ben" {
		t.Errorf("%v", r)
	}
	taken := time.Now()
	p.ben.lets(t, pinned)
	if waited := time.Since(taken); waited >= lease.TTL {
		t.Errorf("ben lets go after %s: nobody told him that the result was taken", waited)
	}
	p.free()
}

// TestTurnsAtAMember: a slot that becomes free goes to those who wait for it in turn, and each gives it to the most urgent of
// its actions.
func TestTurnsAtAMember(t *testing.T) {
	p := newPair(t)
	cleo := executing(t, t.TempDir(), slices.Concat(lender, []string{"node.name=cleo", "exec.cores=1"})...)
	cleo.joins(t, p.ana)
	cleo.sees(t, p.ben)
	eventually(t, "cleo knows what ben lends", func() bool {
		_, known := cleo.mesh.presence.Book.Get(p.ben.identity.ID())
		return known
	})
	freeCleo, freeBen := cleo.occupied(t), p.ben.occupied(t)

	type waiting struct {
		who    string
		stream repb.Execution_ExecuteClient
	}
	var all []waiting
	ask := func(s *started, priority int32) {
		d := s.action(t, fmt.Sprintf("echo %s %d > out", s.config.Node.Name, priority))
		stream, err := repb.NewExecutionClient(s.conn).Execute(t.Context(), &repb.ExecuteRequest{
			ActionDigest: d.Proto(), ExecutionPolicy: &repb.ExecutionPolicy{Priority: priority},
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, waiting{fmt.Sprintf("%s %d", s.config.Node.Name, priority), stream})
	}
	for _, priority := range []int32{5, -1, 0} {
		ask(p.ana, priority)
		ask(cleo, priority)
	}
	for _, s := range []*started{p.ana, cleo} {
		eventually(t, "what was asked for waits", func() bool { return s.machine.room().Waiting == 3 })
	}
	eventually(t, "both have left a ticket", func() bool { return p.ben.machine.leasing.executor.Usage().Tickets == 2 })
	freeBen()
	began := map[string]*repb.ExecutedActionMetadata{}
	var order []string
	for _, w := range all {
		r := response(t, w.stream)
		m := r.Result.GetExecutionMetadata()
		if r.Status.GetCode() != 0 || m.GetWorker() != "ben" {
			t.Fatalf("%s: %v", w.who, r)
		}
		began[w.who], order = m, append(order, w.who)
	}
	slices.SortFunc(order, func(a, b string) int {
		return began[a].ExecutionStartTimestamp.AsTime().Compare(began[b].ExecutionStartTimestamp.AsTime())
	})
	for i, want := range []string{"-1", "-1", "0", "0", "5", "5"} {
		if !strings.HasSuffix(order[i], " "+want) || i%2 == 1 && order[i][:3] == order[i-1][:3] {
			t.Fatalf("they ran in the order %q", order)
		}
	}
	p.free()
	freeCleo()
	p.ben.lets(t, p.ben.Node.store.Stat().Pinned)
}

// TestEvictedIsNotSentBack: an action that a member sent away runs at another one, though the first has room and would take it again.
func TestEvictedIsNotSentBack(t *testing.T) {
	p := newPair(t)
	cleo := executing(t, t.TempDir(), slices.Concat(lender, []string{"node.name=cleo", "exec.cores=1"})...)
	cleo.joins(t, p.ana)
	eventually(t, "ana knows what cleo lends", func() bool {
		_, known := p.ana.mesh.presence.Book.Get(cleo.identity.ID())
		return known
	})
	stream := p.ana.opened(t, p.ana.action(t, untilEnded+"; cat in > out"))
	first, second := p.ben, cleo
	eventually(t, "a member runs it", func() bool {
		if cleo.lending.guests.Load() == 1 {
			first, second = cleo, p.ben
		}
		return first.lending.guests.Load() == 1
	})
	first.machine.leasing.executor.Evict(0)
	eventually(t, "the other one runs it", func() bool { return second.lending.guests.Load() == 1 })
	if r := endsRun(t, stream); r.Result.GetExecutionMetadata().GetWorker() != second.config.Node.Name || r.Result.GetExitCode() != 0 {
		t.Errorf("%v", r)
	}
	var went []string
	refused := ""
	for _, a := range p.ana.why(t, "").Entry.Placing.Attempts {
		went = append(went, a.Name)
		for _, s := range a.Scores {
			if s.Name == first.config.Node.Name {
				refused = s.Refused
			}
		}
	}
	if want := []string{first.config.Node.Name, second.config.Node.Name}; !slices.Equal(went, want) || refused != "failed there before" {
		t.Errorf("it went to %q, want %q; of the first is said %q", went, want, refused)
	}
	p.free()
}
