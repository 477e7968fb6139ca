package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/merge"
	"github.com/buildmesh/buildmesh/exec/place"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// another makes something else in each run.
const another = "cat /proc/sys/kernel/random/uuid > out; "

// untilEnded is a part of a script that goes on until endRuns.
var untilEnded = "sleep 1" + strconv.Itoa(1_000_000+os.Getpid()) + " || true"

// endRuns lets the scripts go on that wait in untilEnded, and reports whether there were any.
func endRuns() (any bool) {
	wanted := strings.ReplaceAll(strings.TrimSuffix(untilEnded, " || true"), " ", "\x00") + "\x00"
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err != nil || string(line) != wanted {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if p, err := os.FindProcess(pid); err == nil && p.Signal(syscall.SIGTERM) == nil {
			any = true
		}
	}
	return any
}

// endsRun lets the scripts go on that wait in untilEnded until a stream ends, and gives its response.
func endsRun(t testing.TB, stream repb.Execution_ExecuteClient) (r *repb.ExecuteResponse) {
	t.Helper()
	ended := make(chan *repb.ExecuteResponse, 1)
	go func() { ended <- response(t, stream) }()
	eventually(t, "the run ends", func() bool {
		endRuns()
		select {
		case r = <-ended:
			return true
		default:
			return false
		}
	})
	return r
}

// waiting has both members asked for an action, and gives the streams when ana waits for ben, who runs it.
func (p *pair) waiting(t testing.TB, script string) (d digest.Digest, ben, ana repb.Execution_ExecuteClient) {
	t.Helper()
	d = p.ana.action(t, script)
	p.ben.action(t, script)
	ben = p.ben.opened(t, d)
	eventually(t, "ben runs it, and ana knows that he is busy", func() bool {
		heard, _ := p.ana.mesh.presence.Book.Get(p.ben.identity.ID())
		return p.ben.machine.room().Running == 1 && heard.CoresFree == 0
	})
	ana = p.ana.opened(t, d)
	p.free()
	eventually(t, "ana waits for him", func() bool {
		for _, f := range p.ana.machine.flights.List() {
			if f.Request().Action == d {
				return f.State().Stage == repb.ExecutionStage_EXECUTING && p.ana.machine.room().Running == 0
			}
		}
		return false
	})
	return d, ben, ana
}

// outOf is the hash of what an action made.
func outOf(t testing.TB, r *repb.ExecuteResponse) string {
	t.Helper()
	if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || len(r.Result.GetOutputFiles()) != 1 {
		t.Fatalf("%v", r)
	}
	return r.Result.OutputFiles[0].Digest.Hash
}

// TestEqualActionsOfTwoMembersRunOnce: what one member runs already another one waits for. The result is ben's, signed by
// him, whole at ana, and told of as what it is; the room of the one that waits is free.
func TestEqualActionsOfTwoMembersRunOnce(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	d, first, later := p.waiting(t, another+untilEnded)
	p.ana.executed(t, p.ana.action(t, "echo beside > out"))
	eventually(t, "ben's run goes on", endRuns)
	b, a := response(t, first), response(t, later)
	if outOf(t, a) != outOf(t, b) || a.CachedResult || a.Message != "merged with ben's" || a.Result.ExecutionMetadata.GetWorker() != "ben" {
		t.Errorf("ben: %v\nana: %v", b, a)
	}
	if n := p.ana.machine.counts.status(); n.Merged != 1 || n.Cancelled != 1 || n.Succeeded != 1 { // cancelled: what kept her busy
		t.Errorf("ana counts %v", n)
	}
	if n := p.ben.machine.counts.status(); n.Merged != 0 || n.Cancelled != 0 || n.Succeeded != 1 {
		t.Errorf("ben counts %v", n)
	}
	if e := p.ana.why(t, d.Hex()).Entry; e.Merged != "ben" || e.Placing != nil || e.Vain != "" {
		t.Errorf("why: %v", e)
	}
	listed, err := contentAnswers{node: p.ana.Node}.List(t.Context(), &controlv1.ListRequest{Action: d.Hex()})
	if err != nil || len(listed.Results) != 1 || listed.Results[0].Signer != "ben" {
		t.Errorf("signed by %v, %v", listed, err)
	}
	p.ben.stop()
	if again := p.ana.executed(t, d); !again.CachedResult || outOf(t, again) != outOf(t, b) {
		t.Errorf("without ben: %v", again)
	}
	p.ana.stop()
}

// TestMergedRunIsLost: whatever befalls the member that is waited for, the other one runs the action itself, and says why.
func TestMergedRunIsLost(t *testing.T) {
	const endlessAtBen = "! grep -q 'Max file size *4096000000 ' /proc/self/limits || sleep 1000; sleep 1" // ana has a second to hear of ben's
	for name, befall := range map[string][]func(t *testing.T, p *pair, first repb.Execution_ExecuteClient){
		"his client cancels it, then he stops": {func(t *testing.T, p *pair, first repb.Execution_ExecuteClient) {
			for _, f := range p.ben.machine.flights.List() {
				f.Cancel()
			}
			response(t, first)
		}, func(_ *testing.T, p *pair, _ repb.Execution_ExecuteClient) {
			p.ben.Hurry()
			p.ben.stop()
		}},
		"he is turned out": {func(t *testing.T, p *pair, _ repb.Execution_ExecuteClient) {
			if _, err := (meshAnswers{node: p.ana.Node}).Revoke(t.Context(), &controlv1.RevokeRequest{Peer: "ben"}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPairOf(t, nil, []string{"exec.max_disk=4096000000"})
			for i, befall := range befall {
				if i > 0 {
					eventually(t, "ana knows that ben is free again", func() bool {
						heard, _ := p.ana.mesh.presence.Book.Get(p.ben.identity.ID())
						return heard.CoresFree > 0
					})
					p.occupy(t)
				}
				d, first, later := p.waiting(t, fmt.Sprintf("%s%s # %d", another, endlessAtBen, i))
				befall(t, p, first)
				r := response(t, later)
				outOf(t, r)
				if r.Result.ExecutionMetadata.GetWorker() != "ana" || r.CachedResult {
					t.Errorf("%v", r)
				}
				if e := p.ana.why(t, d.Hex()).Entry; e.Merged != "" || e.Placing == nil || !strings.HasPrefix(e.Vain, "waited ") || !strings.Contains(e.Vain, " for ben's: ") {
					t.Errorf("why: %v", e)
				}
				if n := p.ana.machine.counts.status(); n.Merged != 0 || n.Failed+n.Faults != 0 {
					t.Errorf("counted as %v", n)
				}
			}
		})
	}
}

// TestBegunAtTheSameMoment: two members that are asked for an action at the very same moment run it once, whoever it is.
func TestBegunAtTheSameMoment(t *testing.T) {
	p := newPair(t)
	p.free()
	for _, script := range []string{"sleep 1 # one", "sleep 1 # two"} {
		var d digest.Digest
		for _, n := range []*started{p.ana, p.ben} {
			d = n.action(t, another+script)
		}
		answers := make([]*repb.ExecuteResponse, 2)
		var asked sync.WaitGroup
		for i, n := range []*started{p.ana, p.ben} {
			asked.Go(func() { answers[i] = n.executed(t, d) })
		}
		asked.Wait()
		if outOf(t, answers[0]) != outOf(t, answers[1]) {
			t.Errorf("it ran twice: %v\n%v", answers[0], answers[1])
		}
		merged := slices.DeleteFunc([]string{answers[0].Message, answers[1].Message}, func(m string) bool { return !strings.HasPrefix(m, "merged with ") })
		if len(merged) != 1 {
			t.Errorf("merged: %q", merged)
		}
	}
}

// TestMergedResultIsBelievedLikeAll: what a member brings in place of the result that was waited for is not taken.
func TestMergedResultIsBelievedLikeAll(t *testing.T) {
	p := newPair(t)
	d, other := p.ben.action(t, "cat in > out"), p.ben.action(t, "cat in in > out")
	p.ana.action(t, "cat in > out")
	from, asked := p.ben.identity.ID(), &action.Action{Digest: d}
	raw := func(d digest.Digest) []byte {
		p.ben.executed(t, d)
		results := mergedResults{p.ben.machine.leasing}
		k, _ := results.Key(t.Context(), &action.Action{Digest: d})
		all, err := results.Receipts(k)
		if err != nil || len(all) != 1 {
			t.Fatalf("%d receipts, %v", len(all), err)
		}
		return all[0]
	}
	good, another := raw(d), raw(other)
	forged := slices.Clone(good)
	forged[len(forged)/2] ^= 1
	stranger := executing(t, t.TempDir())
	r, err := receipt.Sign(stranger.identity, p.ana.Node.content.statement(asked, actioncache.Root(p.ana.machine.fingerprint.Sum), &repb.ActionResult{StdoutRaw: []byte("mine")}))
	if err != nil {
		t.Fatal(err)
	}
	results := mergedResults{p.ana.machine.leasing}
	for name, c := range map[string]struct {
		receipts [][]byte
		err      error
	}{
		"forged":               {[][]byte{forged}, receipt.ErrInvalid},
		"of another action":    {[][]byte{another}, receipt.ErrInvalid},
		"signed by a stranger": {[][]byte{r.Raw()}, receipt.ErrUntrusted},
		"rubbish":              {[][]byte{{1, 2, 3}, nil}, receipt.ErrInvalid},
	} {
		if made, err := results.Adopt(t.Context(), asked, from, c.receipts); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", name, made, err)
		}
	}
	if made, err := results.Adopt(t.Context(), asked, from, [][]byte{forged, good}); err != nil || len(made.OutputFiles) != 1 {
		t.Errorf("the good one: %v, %v", made, err)
	}
	p.free()
}

// TestMergedResultIsMadeAgain: what was waited for is made again like all that members made; when that brings something else,
// nobody's run of it is waited for any more.
func TestMergedResultIsMadeAgain(t *testing.T) {
	p := newPair(t, "mesh.audit=100")
	d, first, later := p.waiting(t, another+untilEnded)
	eventually(t, "ben's run goes on", endRuns)
	if outOf(t, response(t, later)) != outOf(t, response(t, first)) {
		t.Fatal("it was not merged")
	}
	eventually(t, "ana has made it again", func() bool { return !endRuns() && p.ana.machine.auditor.disputed.Load() == 1 })
	a := &action.Action{Digest: d}
	eventually(t, "both words are kept", func() bool { return len(p.disputes(t)) == 1 })
	if _, shared := (mergedResults{p.ana.machine.leasing}).Key(t.Context(), a); shared {
		t.Error("a member's run of a disputed action would be waited for")
	}
	if _, shared := (mergedResults{p.ben.machine.leasing}).Key(t.Context(), &action.Action{Digest: p.ben.action(t, "true")}); !shared {
		t.Error("no other action is merged either")
	}
}

// TestWhoGuessesHearsNothingOfRuns: a member that has asked for too much that is not here is not told what runs or was made
// either.
func TestWhoGuessesHearsNothingOfRuns(t *testing.T) {
	p := newPair(t)
	p.free()
	conn, err := p.ben.mesh.transport.Control(t.Context(), p.ana.identity.ID())
	if err != nil {
		t.Fatal(err)
	}
	client, key := leasev1.NewMergeClient(conn), make([]byte, 32)
	p.ana.Node.content.guard.Missed(p.ben.identity.ID(), 4*share.MissBurst)
	if _, err := client.Tell(t.Context(), &leasev1.TellRequest{Notices: []*leasev1.Notice{{Key: key, Kind: leasev1.Notice_KIND_BEGUN}}}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("told: %v", err)
	}
	if _, err := client.Await(t.Context(), &leasev1.AwaitRequest{Key: key}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("asked: %v", err)
	}
	if said := p.ana.Node.content.problems(); len(said) != 1 || said[0].Fix != "buildmesh revoke ben" {
		t.Errorf("status says %v", said)
	}
}

// TestWhoBelievesNobodyMergesNothing: a member that takes nobody's results alone neither tells what it runs nor waits, and runs it
// itself.
func TestWhoBelievesNobodyMergesNothing(t *testing.T) {
	for _, trust := range []string{"self", "quorum 2"} {
		n := executing(t, t.TempDir(), "mesh.trust="+trust)
		a := &action.Action{Digest: n.action(t, "true"), InputRoot: digest.SHA256.Empty()}
		if _, shared := (mergedResults{n.machine.leasing}).Key(t.Context(), a); shared {
			t.Errorf("with mesh.trust = %s it merges", trust)
		}
		if class := n.machine.leasing.class(t.Context(), a); class != place.Local {
			t.Errorf("with mesh.trust = %s its actions are %v", trust, class)
		}
	}
	n := executing(t, t.TempDir(), "mesh.no_share=*.key", "mesh.instances=open")
	results, nothing := mergedResults{n.machine.leasing}, digest.SHA256.Empty()
	for name, c := range map[string]struct {
		action action.Action
		shared bool
	}{
		"open":                 {action.Action{Instance: "open", InputRoot: nothing}, true},
		"of a closed instance": {action.Action{Instance: "closed", InputRoot: nothing}, false},
		"with a secret output": {action.Action{Instance: "open", InputRoot: nothing, Outputs: []action.Output{{Path: "a.key", Clean: "a.key"}}}, false},
	} {
		if k, shared := results.Key(t.Context(), &c.action); shared != c.shared || !shared && k != (merge.Key{}) {
			t.Errorf("%s: shared %v", name, shared)
		}
	}
}
