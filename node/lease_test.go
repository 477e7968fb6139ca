package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/node/power"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// lender is a node that lends whatever this machine's own facts are.
var lender = []string{"lend.battery=lend", "lend.user=lend", "lend.heat=lend", "lend.metered=lend", "lend.cpu=0", "lend.reserve=0"}

// eventually polls what another goroutine brings about, at most 30 s.
func eventually(t testing.TB, claim string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", claim)
		}
	}
}

// pair is two members of one core each; the first one's is taken by an action that runs for ever.
type pair struct {
	ana, ben *started
	free     func() // ends what keeps ana busy
}

// newPair starts both, ana with more settings; ana's core is taken.
func newPair(t testing.TB, more ...string) *pair { return newPairOf(t, more, nil) }

// newPairOf is newPair with settings for each.
func newPairOf(t testing.TB, ana, ben []string) *pair {
	t.Helper()
	p := &pair{
		ana: executing(t, t.TempDir(), slices.Concat(lender, []string{"node.name=ana", "exec.cores=1"}, ana)...),
		ben: executing(t, t.TempDir(), slices.Concat(lender, []string{"node.name=ben", "exec.cores=1"}, ben)...),
	}
	p.ben.joins(t, p.ana)
	eventually(t, "each knows what the other lends", func() bool {
		_, a := p.ana.mesh.presence.Book.Get(p.ben.identity.ID())
		_, b := p.ben.mesh.presence.Book.Get(p.ana.identity.ID())
		return a && b
	})
	p.occupy(t)
	return p
}

// occupy takes ana's core until free is called.
func (p *pair) occupy(t testing.TB) { p.free = p.ana.occupied(t) }

// occupied takes the one core of a node, by an action that no other runs, until free is called.
func (s *started) occupied(t testing.TB) (free func()) {
	t.Helper()
	s.opened(t, s.action(t, "sleep 1000 # "+s.config.Node.Name))
	eventually(t, s.config.Node.Name+" is busy", func() bool { return s.machine.room().Running == 1 })
	all := s.machine.flights.List()
	busy := all[slices.IndexFunc(all, func(f *flight.Flight) bool { return !f.State().Done() })]
	return func() {
		busy.Cancel()
		eventually(t, s.config.Node.Name+" is free", func() bool { return busy.State().Done() })
	}
}

// TestActionRunsAtMember: with no slot free here an action runs at a member; its outputs are here, whoever leaves, and both
// know who ran it.
func TestActionRunsAtMember(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	action := p.ana.action(t, "cat in > out; echo said; echo complained >&2")
	r := p.ana.executed(t, action)
	if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.Result.ExecutionMetadata.GetWorker() != "ben" || !strings.Contains(r.Message, "ben") {
		t.Fatalf("%v", r)
	}
	p.ben.stop()
	out := r.Result.OutputFiles[0].Digest
	if d := digest.SHA256.Of([]byte("input")); out.Hash != d.Hex() || p.ana.missing(t, d) || p.ana.missing(t, digest.SHA256.Of([]byte("said\n"))) {
		t.Errorf("outputs are not at ana: %v", r.Result)
	}
	listed, err := contentAnswers{node: p.ana.Node}.List(t.Context(), &controlv1.ListRequest{Action: action.Hex()})
	if err != nil || len(listed.Results) != 1 || listed.Results[0].Signer == "ana" {
		t.Errorf("signed by %v, %v", listed, err)
	}
	if again := p.ana.executed(t, action); !again.CachedResult {
		t.Error("the second execution was no hit")
	}
	p.free()
	p.ana.stop()
}

// TestResultIsTheOneSigned: a member that brings one result and signs another is not believed, and neither result is kept.
func TestResultIsTheOneSigned(t *testing.T) {
	p := newPair(t)
	d := p.ana.action(t, "cat in > out")
	a := &action.Action{Digest: d}
	made := &repb.ActionResult{StdoutRaw: []byte("one thing")}
	signed, err := leaseReceipts{p.ben.Node}.Sign(t.Context(), a, made)
	if err != nil {
		t.Fatal(err)
	}
	receipts, from := leaseReceipts{p.ana.Node}, p.ben.identity.ID()
	if err := receipts.Accept(t.Context(), from, a, &repb.ActionResult{StdoutRaw: []byte("another")}, signed); !errors.Is(err, receipt.ErrInvalid) {
		t.Errorf("another result than was signed: %v", err)
	}
	if _, err := p.ana.result(t, d); status.Code(err) != codes.NotFound {
		t.Errorf("it is kept: %v", err)
	}
	if err := receipts.Accept(t.Context(), from, a, made, signed); err != nil {
		t.Errorf("the one that was signed: %v", err)
	}
	p.free()
}

// TestOwnResultIsSignedAfterAnothers: a member's result that came too late to count does not keep this node from signing its own.
func TestOwnResultIsSignedAfterAnothers(t *testing.T) {
	p := newPair(t)
	d := p.ana.action(t, "cat in > out")
	a, made := &action.Action{Digest: d}, &repb.ActionResult{StdoutRaw: []byte("made")}
	late, err := leaseReceipts{p.ben.Node}.Sign(t.Context(), a, made)
	if err != nil {
		t.Fatal(err)
	}
	receipts := leaseReceipts{p.ana.Node}
	if err := receipts.Accept(t.Context(), p.ben.identity.ID(), a, made, late); err != nil {
		t.Fatal(err)
	}
	if err := p.ana.Node.content.publish(t.Context(), a, receipts.root(a), made); err != nil {
		t.Fatal(err)
	}
	listed, err := contentAnswers{node: p.ana.Node}.List(t.Context(), &controlv1.ListRequest{Action: d.Hex()})
	var signers []string
	for _, r := range listed.GetResults() {
		signers = append(signers, r.Signer)
	}
	if slices.Sort(signers); err != nil || !slices.Equal(signers, []string{"ana", "ben"}) {
		t.Errorf("signed by %v, want ana and ben: %v", signers, err)
	}
	p.free()
}

// TestOutputsArePinned: what an action made for a member is kept, also what is in its directories, until it is let go.
func TestOutputsArePinned(t *testing.T) {
	n := start(t, configured(t, t.TempDir()))
	file := n.put(t, "in a directory")
	tree := n.put(t, string(encoded(t, &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{{Name: "x", Digest: file.Proto()}}}})[0]))
	out, said := n.put(t, "an output"), n.put(t, "said")
	r := &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{{Path: "out", Digest: out.Proto()}}, StdoutDigest: said.Proto(),
		OutputDirectories: []*repb.OutputDirectory{{Path: "dir", TreeDigest: tree.Proto()}},
	}
	before := n.Node.store.Stat().Pinned
	release, err := leaseContent{n.Node}.Pin(t.Context(), digest.SHA256, r)
	if pinned := n.Node.store.Stat().Pinned - before; err != nil || pinned != 4 {
		t.Errorf("%d blobs are pinned, want 4: %v", pinned, err)
	}
	release()
	if left := n.Node.store.Stat().Pinned - before; left != 0 {
		t.Errorf("%d blobs stay pinned", left)
	}
	r.OutputFiles[0].Digest = digest.SHA256.Of([]byte("lost")).Proto()
	if _, err := (leaseContent{n.Node}).Pin(t.Context(), digest.SHA256, r); !errors.Is(err, cas.ErrNotFound) || n.Node.store.Stat().Pinned != before {
		t.Errorf("a result of which something is lost: %v, %d pinned", err, n.Node.store.Stat().Pinned-before)
	}
}

// TestFailureAtMember: an action that fails at a member fails with its own exit code and words, and is not cached.
func TestFailureAtMember(t *testing.T) {
	p := newPair(t)
	failing := p.ana.action(t, "echo why >&2; exit 7")
	for range 2 {
		r := p.ana.executed(t, failing)
		if r.CachedResult || r.Status.GetCode() != 0 || r.Result.GetExitCode() != 7 || r.Result.ExecutionMetadata.GetWorker() != "ben" {
			t.Errorf("%v", r)
		}
		if p.ana.missing(t, digest.SHA256.Of([]byte("why\n"))) {
			t.Error("its words did not come")
		}
	}
	p.free()
}

// TestMemberLostMidRun: a member that vanishes while it runs an action costs time, not the build.
func TestMemberLostMidRun(t *testing.T) {
	p := newPair(t)
	action := p.ana.action(t, untilEnded+"; cat in > out")
	stream := p.ana.opened(t, action)
	eventually(t, "ben runs it", func() bool { return p.ben.lending.guests.Load() == 1 })
	p.ben.Hurry()
	p.ben.stop()
	p.free()
	r := endsRun(t, stream)
	if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.Result.ExecutionMetadata.GetWorker() != "ana" {
		t.Errorf("%v", r)
	}
}

// TestCancelReachesMember: cancelling an operation ends what runs at a member, and the owner's pause does too.
func TestCancelReachesMember(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := repb.NewExecutionClient(p.ana.conn).Execute(ctx, &repb.ExecuteRequest{ActionDigest: p.ana.action(t, "sleep 998").Proto()})
	if err != nil {
		t.Fatal(err)
	}
	op, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "ben runs it", func() bool { return p.ben.lending.guests.Load() == 1 })
	flight, found := p.ana.machine.flights.Find(op.Name)
	if !found {
		t.Fatal("the operation is not known")
	}
	flight.Cancel()
	eventually(t, "ben is free", func() bool { return p.ben.lending.guests.Load() == 0 })

	paused := p.ana.opened(t, p.ana.action(t, "sleep 999; cat in > out"))
	eventually(t, "ben runs another one", func() bool { return p.ben.lending.guests.Load() == 1 })
	if _, err := (lendingAnswers{lending: p.ben.lending}).Pause(t.Context(), &controlv1.PauseRequest{Now: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ben is its owner's again", func() bool { return p.ben.lending.guests.Load() == 0 })
	p.free()
	eventually(t, "ana runs it herself", func() bool { return p.ana.machine.room().Running == 1 })
	for _, f := range p.ana.machine.flights.List() {
		f.Cancel()
	}
	for {
		if _, err := paused.Recv(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			return
		}
	}
}

// freezes skips a test where actions cannot be made to stand still.
func (p *pair) freezes(t testing.TB) {
	t.Helper()
	if p.ben.report.Groups == "none" {
		t.Skip("no control groups on this machine")
	}
}

// TestSlowMemberIsOvertaken: a member whose machine stands still while it runs an action is overtaken by a copy here, once
// this machine is free, and what stands still there is ended.
func TestSlowMemberIsOvertaken(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	p.freezes(t)
	p.free()
	for i := range 5 { // so much is known of how long such actions take
		p.ana.executed(t, p.ana.action(t, fmt.Sprintf("echo %d > out", i)))
	}
	p.occupy(t)
	action := p.ana.action(t, untilEnded+"; cat in > out")
	stream := p.ana.opened(t, action)
	eventually(t, "ben runs it", func() bool { return p.ben.lending.guests.Load() == 1 })
	p.ben.lendingChanged(power.Status{State: power.Draining, Reason: "somebody uses the machine", Freeze: true})
	p.free()
	eventually(t, "ana runs it too", func() bool { return p.ana.machine.room().Running == 1 })
	r := endsRun(t, stream)
	if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.Result.ExecutionMetadata.GetWorker() != "ana" {
		t.Errorf("%v", r)
	}
	eventually(t, "ben is free", func() bool { return p.ben.lending.guests.Load() == 0 })
	p.ben.lendingChanged(power.Status{State: power.Open})
	p.ana.stop()
	p.ben.stop()
}

// TestMemberRefuses: a member that is paused, or has less memory free than its owner keeps and an action asks for, is not given the
// action, and refuses it when it is asked all the same; why tells the reason.
func TestMemberRefuses(t *testing.T) {
	p := newPairOf(t, []string{"exec.memory=1TiB"}, []string{"exec.memory=1TiB", "lend.reserve=64MiB"})
	var known place.Peer
	eventually(t, "ana knows how much memory is free at ben", func() bool {
		heard, _ := p.ana.mesh.presence.Book.Get(p.ben.identity.ID())
		member, _ := p.ana.mesh.presence.Roster.Now().Get(p.ben.identity.ID())
		known = peerOf(member, heard)
		return known.FreeBytes < 1<<40
	})
	known.FreeBytes, known.FreeCores, known.State = 1<<40, 1, place.Open // what ana believes when what she knows is old

	const large = "min-mem=1000G"
	memory := regexp.MustCompile(`^refused: only \d+ MiB of memory are free, of 64 MiB for its owner and 1024000 MiB for the action$`)
	if got := p.refusal(t, known, p.ana.asking(t, "echo $0 > out", large)); !memory.MatchString(got) {
		t.Errorf("asked for more memory than is free: %q", got)
	}
	p.ana.executed(t, p.ana.asking(t, "echo $0 $0 > out", large))
	memory = regexp.MustCompile(`^only \d+ MiB of memory are free for it, of 1024000 MiB it asks for$`)
	if scores := p.ana.why(t, "").Entry.Placing.Attempts[0].Scores; !slices.ContainsFunc(scores, func(s *journalv1.Score) bool {
		return s.Name == "ben" && memory.MatchString(s.Refused)
	}) {
		t.Errorf("not asked at all: %v", scores)
	}

	p.occupy(t)
	if _, err := (lendingAnswers{lending: p.ben.lending}).Pause(t.Context(), &controlv1.PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ana knows that ben is paused", func() bool {
		heard, _ := p.ana.mesh.presence.Book.Get(p.ben.identity.ID())
		return heard.State == facts.Paused
	})
	if got, want := p.refusal(t, known, p.ana.asking(t, "echo paused > out")), "refused: takes no guests now: paused"; got != want {
		t.Errorf("asked while paused: %q, want %q", got, want)
	}
}

// refusal gives what ben says when ana, who is busy, asks him to run an action because she knows no better. She runs it herself then.
func (p *pair) refusal(t *testing.T, known place.Peer, d digest.Digest) string {
	t.Helper()
	stream := p.ana.opened(t, d)
	waits := func() bool { return p.ana.machine.leasing.initiator.Waiting() == 1 }
	eventually(t, "it waits", waits)
	p.ana.machine.leasing.initiator.Peer(known)
	eventually(t, "it waits again", waits)
	p.free()
	if r := response(t, stream); r.Result.GetExecutionMetadata().GetWorker() != "ana" {
		t.Errorf("%v", r)
	}
	first := p.ana.why(t, "").Entry.Placing.Attempts[0]
	if first.Name != "ben" {
		t.Fatalf("%v was asked first", first)
	}
	return first.Events[0].What
}

// TestOwnerReturns: what runs for others stands still while the owner is there, goes on where it was when he leaves again,
// and is run elsewhere when he stays.
func TestOwnerReturns(t *testing.T) {
	p := newPair(t)
	p.freezes(t)
	back := power.Status{State: power.Draining, Reason: "somebody uses the machine", Freeze: true}
	stream := p.ana.opened(t, p.ana.action(t, untilEnded+"; cat in > out"))
	eventually(t, "ben runs it", func() bool { return p.ben.lending.guests.Load() == 1 })
	p.ben.lendingChanged(back)
	for began := time.Now(); time.Since(began) < 2*time.Second; time.Sleep(50 * time.Millisecond) { // many times as long as it takes
		endRuns()
	}
	if p.ben.lending.guests.Load() != 1 {
		t.Fatal("it did not stand still")
	}
	p.ben.lendingChanged(power.Status{State: power.Open})
	if r := endsRun(t, stream); r.Result.GetExecutionMetadata().GetWorker() != "ben" || r.Result.GetExitCode() != 0 {
		t.Errorf("%v", r)
	}

	stream = p.ana.opened(t, p.ana.action(t, untilEnded+"; cat in > out; true again"))
	eventually(t, "ben runs another", func() bool { return p.ben.lending.guests.Load() == 1 })
	p.ben.lendingChanged(back)
	back.Evict = true
	p.ben.lendingChanged(back)
	eventually(t, "ben is his owner's", func() bool { return p.ben.lending.guests.Load() == 0 })
	p.free()
	if r := endsRun(t, stream); r.Result.GetExecutionMetadata().GetWorker() != "ana" || r.Result.GetExitCode() != 0 {
		t.Errorf("%v", r)
	}
	p.ben.lendingChanged(power.Status{State: power.Open})
}
