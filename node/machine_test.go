package node

import (
	"errors"
	"io"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// executing is a running node that runs actions; without a sandbox on this machine the test is skipped.
func executing(t testing.TB, dir string, more ...string) *started {
	t.Helper()
	n := start(t, configured(t, dir, append(more, "exec.enabled=true")...))
	if n.machine == nil {
		t.Skip("no sandbox on this machine")
	}
	return n
}

// action stores an action that runs a shell script and captures the file "out".
func (s *started) action(t testing.TB, script string) digest.Digest {
	t.Helper()
	store := func(m proto.Message) digest.Digest {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return s.put(t, string(data))
	}
	command := store(shell(script))
	root := store(&repb.Directory{Files: []*repb.FileNode{{Name: "in", Digest: s.put(t, "input").Proto()}}})
	return store(&repb.Action{CommandDigest: command.Proto(), InputRootDigest: root.Proto()})
}

// shell is a command that runs a script and captures the file "out".
func shell(script string) *repb.Command {
	return &repb.Command{Arguments: []string{"/bin/sh", "-c", script}, OutputPaths: []string{"out"},
		EnvironmentVariables: []*repb.Command_EnvironmentVariable{{Name: "PATH", Value: "/usr/bin:/bin"}}}
}

// executed runs an action and gives the answer, which may come with the very first operation.
func (s *started) executed(t testing.TB, action digest.Digest) *repb.ExecuteResponse {
	t.Helper()
	stream, err := repb.NewExecutionClient(s.conn).Execute(t.Context(), &repb.ExecuteRequest{ActionDigest: action.Proto()})
	if err != nil {
		t.Fatal(err)
	}
	return response(t, stream)
}

// opened starts an execution and gives its stream after the first operation.
func (s *started) opened(t testing.TB, action digest.Digest) repb.Execution_ExecuteClient {
	t.Helper()
	stream, err := repb.NewExecutionClient(s.conn).Execute(t.Context(), &repb.ExecuteRequest{ActionDigest: action.Proto()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	return stream
}

// response reads a stream to its end.
func response(t testing.TB, stream repb.Execution_ExecuteClient) *repb.ExecuteResponse {
	t.Helper()
	r := new(repb.ExecuteResponse)
	for {
		op, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err != nil {
			t.Fatal(err)
		}
		if op.Done {
			if err := op.GetResponse().UnmarshalTo(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// result asks the action cache.
func (s *started) result(t testing.TB, action digest.Digest) (*repb.ActionResult, error) {
	t.Helper()
	return repb.NewActionCacheClient(s.conn).GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action.Proto()})
}

// finds asks a node for a result until it has one: a member that does not answer within a look-up's budget makes it a miss.
func (s *started) finds(t testing.TB, action digest.Digest) (r *repb.ActionResult) {
	t.Helper()
	var err error
	eventually(t, s.config.Node.Name+" finds a result", func() bool {
		r, err = s.result(t, action)
		return err == nil
	})
	return r
}

func TestExecute(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	n := executing(t, dir)
	action := n.action(t, "cat in > out; echo said")
	if _, err := n.result(t, action); status.Code(err) != codes.NotFound {
		t.Fatalf("before: %v", err)
	}
	first := n.executed(t, action)
	if first.CachedResult || first.Status.GetCode() != 0 || first.Result.GetExitCode() != 0 || len(first.Result.OutputFiles) != 1 {
		t.Fatalf("first execution: %v", first)
	}
	if n.missing(t, digest.SHA256.Of([]byte("input"))) || first.Result.OutputFiles[0].Digest.Hash != digest.SHA256.Of([]byte("input")).Hex() {
		t.Errorf("output: %v", first.Result.OutputFiles[0])
	}
	if first.Result.ExecutionMetadata.Worker != n.config.Node.Name {
		t.Errorf("ran by %q", first.Result.ExecutionMetadata.Worker)
	}
	if again := n.executed(t, action); !again.CachedResult {
		t.Errorf("the second execution was no hit: %v", again)
	}
	failing := n.executed(t, n.action(t, "exit 3"))
	if failing.Result.GetExitCode() != 3 {
		t.Errorf("failing action: %v", failing)
	}
	s := n.Snapshot()
	if a := s.Actions; a.Succeeded != 1 || a.Failed != 1 || a.Cached != 1 || a.Faults != 0 {
		t.Errorf("actions counted: %v", a)
	}
	if s.Results.Hits != 1 || s.Results.Entries != 1 || s.Slots.Running != 0 || s.Sandbox.Fingerprint == "" {
		t.Errorf("status: %v, %v, %v", s.Results, s.Slots, s.Sandbox)
	}
	_, metrics := n.page(t, "/metrics")
	for _, want := range []string{`buildmesh_actions_total{outcome="failed"} 1`, `buildmesh_action_phase_seconds_count{phase="running"} 2`,
		`buildmesh_action_phase_seconds_count{phase="queued"} 2`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	n.stop()

	restarted := executing(t, dir)
	if found, err := restarted.result(t, action); err != nil || len(found.OutputFiles) != 1 {
		t.Errorf("after a restart: %v, %v", found, err)
	}
	restarted.stop()
}

// TestDrainWaitsForActions stops a node while an action runs: the client gets its result.
func TestDrainWaitsForActions(t *testing.T) {
	noLeaks(t)
	n := executing(t, t.TempDir(), "node.drain=1h")
	stream := n.opened(t, n.action(t, "sleep 0.5; echo done > out"))
	n.cancel()
	if r := response(t, stream); r.Result.GetExitCode() != 0 || len(r.Result.GetOutputFiles()) != 1 {
		t.Errorf("the action was not waited for: %v", r)
	}
	n.stop()
}

// TestHurryKillsActions cuts a drain short while an action runs: nothing of it is left.
func TestHurryKillsActions(t *testing.T) {
	noLeaks(t)
	n := executing(t, t.TempDir(), "node.drain=1h")
	stream := n.opened(t, n.action(t, "sleep 1000"))
	for running := false; !running; { // the first operation may come before the action has its slot
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		running = n.Snapshot().Slots.Running == 1
	}
	if flights := n.Snapshot().Flights; len(flights) != 1 {
		t.Errorf("flights: %v", flights)
	}
	n.cancel()
	n.Hurry()
	n.stop()
	for { // what was sent before the end may still be read
		op, err := stream.Recv()
		if err != nil {
			break
		}
		r := new(repb.ExecuteResponse)
		if op.Done && (op.GetResponse().UnmarshalTo(r) != nil || r.Status.GetCode() == 0) {
			t.Errorf("a killed action has a result: %v", op)
		}
	}
}

// TestClientResult keeps what a client uploads apart from what this machine made.
func TestClientResult(t *testing.T) {
	noLeaks(t)
	n := executing(t, t.TempDir())
	action := n.action(t, "echo machine > out")
	blob := n.put(t, "client")
	_, err := repb.NewActionCacheClient(n.conn).UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
		ActionDigest: action.Proto(),
		ActionResult: &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: blob.Proto()}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := n.result(t, action)
	if err != nil || found.OutputFiles[0].Digest.Hash != blob.Hex() {
		t.Fatalf("a client's own result: %v, %v", found, err)
	}
	stream, err := repb.NewExecutionClient(n.conn).Execute(t.Context(), &repb.ExecuteRequest{ActionDigest: action.Proto(), SkipCacheLookup: true})
	if err != nil {
		t.Fatal(err)
	}
	response(t, stream)
	made := digest.SHA256.Of([]byte("machine\n"))
	if found, err = n.result(t, action); err != nil || found.OutputFiles[0].Digest.Hash != made.Hex() {
		t.Errorf("what the machine made comes first: %v, %v", found, err)
	}
	_, err = repb.NewActionCacheClient(n.conn).UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
		ActionDigest: action.Proto(), ActionResult: &repb.ActionResult{ExitCode: 1},
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a failed result: %v", err)
	}
	n.stop()
}

func TestInstances(t *testing.T) {
	if got := instances(" bst, other,,"); len(got) != 2 || got[0] != "bst" || got[1] != "other" {
		t.Errorf("got %q", got)
	}
	if got := instances(""); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
