//lint:file-ignore SA1019 fields that are deprecated are still sent by clients, and examined here

package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// missingChecks hold of executions whose blobs are not all there.
func missingChecks() []Check {
	exec, src := []Feature{Execution}, "rpc Execute: missing input or command; Bazel uploads what the violations name"
	return []Check{
		{
			Claim: "an_absent_action_is_FAILED_PRECONDITION", Needs: exec, Run: checkMissingAction, Source: src,
			Rule: "the action itself is one of the blobs that may be missing, and is named as the others are",
		},
		{
			Claim: "an_absent_command_is_FAILED_PRECONDITION", Needs: exec, Run: checkMissingCommand, Source: src,
			Rule: "FAILED_PRECONDITION with a violation for the command, never NOT_FOUND",
		},
		{
			Claim: "every_absent_input_is_named_at_once", Needs: exec, Run: checkMissingInputs, Source: src,
			Rule: "one PreconditionFailure lists every missing file and directory that can be known, type MISSING, subject blobs/{function/}{hash}/{size}",
		},
		{
			Claim: "a_violation_names_its_blob_without_instance", Needs: exec, Run: checkMissingSubject, Source: "rpc Execute: the leading instance name omitted",
			Rule: "subjects are blobs/{hash}/{size} whatever the instance, and blobs/blake3/{hash}/{size} for BLAKE3",
		},
		{
			Claim: "an_execution_works_once_the_missing_is_uploaded", Needs: exec, Run: checkMissingThenThere, Source: src,
			Rule: "the same action executes when what the violations named has been uploaded",
		},
		{
			Claim: "a_malformed_action_is_refused", Needs: exec, Run: checkActionMalformed, Source: "rpc Execute, INVALID_ARGUMENT",
			Rule: "bytes that are no Action, an action without a command, a command without arguments get INVALID_ARGUMENT",
		},
		{
			Claim: "a_malformed_action_digest_is_refused", Needs: exec, Run: checkActionDigestMalformed, Source: "message Digest",
			Rule: "INVALID_ARGUMENT, before any operation",
		},
	}
}

// violations are the subjects of the MISSING violations that an execution ended with.
func violations(t T, r Run) []string {
	t.Helper()
	st := status.Convert(r.Err).Proto()
	if r.Err == nil {
		st = r.Response.GetStatus()
	}
	if codes.Code(st.GetCode()) != codes.FailedPrecondition {
		t.Errorf("an execution with missing blobs ended with %s (%s), want FailedPrecondition", r.Code(), r.Why())
	}
	return missingSubjects(t, st)
}

func missingSubjects(t T, st *spb.Status) []string {
	t.Helper()
	var subjects []string
	failures := 0
	for _, d := range st.GetDetails() {
		failure := &errdetails.PreconditionFailure{}
		if d.UnmarshalTo(failure) != nil {
			continue
		}
		failures++
		for _, v := range failure.Violations {
			if v.Type != "MISSING" {
				t.Errorf("a violation has type %q, want MISSING", v.Type)
			}
			subjects = append(subjects, v.Subject)
		}
	}
	if failures != 1 {
		t.Errorf("the status has %d PreconditionFailure details, want one that lists every blob", failures)
	}
	slices.Sort(subjects)
	return slices.Compact(subjects)
}

// subjectOf is how a violation names d.
func (s *Subject) subjectOf(d *repb.Digest) string { return "blobs/" + s.path(d) }

func (s *Subject) wantViolations(t T, r Run, want ...*repb.Digest) {
	t.Helper()
	got := violations(t, r)
	var names []string
	for _, d := range want {
		names = append(names, s.subjectOf(d))
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("the violations name %v, want %v", got, names)
	}
}

func checkMissingAction(ctx context.Context, t T, s *Subject) {
	d := s.Unseen()
	s.wantViolations(t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}), d)
}

func checkMissingCommand(ctx context.Context, t T, s *Subject) {
	c := s.Shell("true # " + newUUID())
	a := s.Action(t, c, s.Empty())
	r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: s.PutMessage(ctx, t, a)})
	s.wantViolations(t, r, a.CommandDigest)
}

func checkMissingInputs(ctx context.Context, t T, s *Subject) {
	c := s.Shell("true # " + newUUID())
	files := []*repb.Digest{s.Unseen(), s.Unseen(), s.Unseen()}
	dir := s.Unseen()
	child := &repb.Directory{Files: []*repb.FileNode{{Name: "c", Digest: files[2]}}}
	root := &repb.Directory{
		Files:       []*repb.FileNode{{Name: "a", Digest: files[0]}, {Name: "b", Digest: files[1]}, {Name: "e", Digest: s.Empty()}},
		Directories: []*repb.DirectoryNode{{Name: "d", Digest: s.PutMessage(ctx, t, child)}, {Name: "x", Digest: dir}},
	}
	a := s.Action(t, c, s.PutMessage(ctx, t, root))
	r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: s.PutMessage(ctx, t, a)})
	s.wantViolations(t, r, append(files, dir, a.CommandDigest)...)
}

func checkMissingSubject(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		s := s.With(f)
		c := s.Shell("true")
		s.PutMessage(ctx, t, c)
		lost := s.Unseen()
		a := s.Action(t, c, s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: lost}}}))
		s.wantViolations(t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: s.PutMessage(ctx, t, a)}), lost)
	}
}

func checkMissingThenThere(ctx context.Context, t T, s *Subject) {
	content := s.Text(200)
	c := s.Shell("cat f")
	root := s.PutMessage(ctx, t, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: s.Digest(content)}}})
	a := s.Action(t, c, root)
	s.wantViolations(t, s.Execute(ctx, t, c, a), s.Digest(content))
	s.Put(ctx, t, content)
	result := s.Result(ctx, t, s.Execute(ctx, t, c, a), 0)
	if got := s.stdout(ctx, t, result); got != string(content) {
		t.Errorf("the action read %q, want what was uploaded", got)
	}
}

func checkActionMalformed(ctx context.Context, t T, s *Subject) {
	good := s.Shell("true")
	noArguments := &repb.Command{Platform: good.Platform}
	s.PutMessage(ctx, t, good)
	s.PutMessage(ctx, t, noArguments)
	garbage := append([]byte("\xff\xff\xff"), s.Blob(30)...)
	badCommand := s.Action(t, good, s.Empty())
	badCommand.CommandDigest = s.Put(ctx, t, garbage)[0]
	for what, data := range map[string][]byte{
		"bytes that are no message":                       garbage,
		"an action without a command digest":              wire(t, &repb.Action{InputRootDigest: s.Empty(), Salt: s.Blob(8)}),
		"an action whose command has no arguments":        wire(t, s.Action(t, noArguments, s.Empty())),
		"an action whose command is no message":           wire(t, badCommand),
		"an action whose command digest has a short hash": wire(t, &repb.Action{CommandDigest: &repb.Digest{Hash: "ab"}, InputRootDigest: s.Empty()}),
	} {
		r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: s.Put(ctx, t, data)[0]})
		if r.Code() != codes.InvalidArgument {
			t.Errorf("Execute of %s ended with %s (%s), want InvalidArgument", what, r.Code(), r.Why())
		}
	}
}

func checkActionDigestMalformed(ctx context.Context, t T, s *Subject) {
	for what, d := range malformed(s.Unseen()) {
		r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})
		wantCode(t, r.Err, "Execute of an action digest with "+what, codes.InvalidArgument)
	}
}

// streamChecks hold of the stream of operations.
func streamChecks() []Check {
	exec, src := []Feature{Execution}, "message ExecutionStage"
	return []Check{
		{
			Claim: "the_first_operation_comes_at_once", Needs: exec, Run: checkFirstOperation, Source: "rpc Execute; clients need the name to wait again",
			Rule: "before the action is done the stream has carried an operation with a name",
		},
		{
			Claim: "stages_come_in_order", Needs: exec, Run: checkStages, Source: src,
			Rule: "CACHE_CHECK, QUEUED, EXECUTING, COMPLETED; any may be left out but the last, and EXECUTING may fall back to QUEUED",
		},
		{
			Claim: "done_is_COMPLETED_and_the_end", Needs: exec, Run: checkDone, Source: src,
			Rule: "exactly the last message is done, its stage is COMPLETED and it carries the response; then the stream ends",
		},
		{
			Claim: "one_execution_is_one_operation", Needs: exec, Run: checkOneName, Source: "rpc Execute",
			Rule: "all messages of a stream have the same name, and metadata with the action's digest",
		},
		{
			Claim: "a_failing_command_is_no_error", Needs: exec, Run: checkFailingIsNoError, Source: "ExecuteResponse.status; ActionResult.exit_code",
			Rule: "a command that exits with another code than 0 is a finished execution: status OK, the exit code in the result",
		},
		{
			Claim: "Operation_error_is_never_set", Needs: exec, Run: checkNoOperationError, Source: "rpc Execute: MUST NOT set the error field",
			Rule: "errors of an execution stand in ExecuteResponse.status, also for timeouts and absent inputs",
		},
		{
			Claim: "WaitExecution_gives_the_state_at_once_and_then_the_rest", Needs: exec, Run: checkWait, Source: "rpc WaitExecution",
			Rule: "immediately the current operation, finally the one that is done, with the response of the first stream",
		},
		{
			Claim: "WaitExecution_works_after_the_first_stream_broke", Needs: exec, Run: checkWaitBroken, Source: "rpc WaitExecution; Bazel reconnects so",
			Rule: "an execution outlives the stream that began it",
		},
		{
			Claim: "WaitExecution_of_an_unknown_operation_is_NOT_FOUND", Needs: exec, Run: checkWaitUnknown, Source: "rpc WaitExecution",
			Rule: "NOT_FOUND tells the client to call Execute again; no other code does",
		},
		{
			Claim: "long_waits_are_kept_alive", Needs: []Feature{Execution, KeepAlive}, Level: Should, Run: checkKeepAlive, Source: "proxies close silent streams",
			Rule: "while nothing changes, a message comes at least every interval given with -keepalive",
		},
	}
}

func checkFirstOperation(ctx context.Context, t T, s *Subject) {
	c := s.Shell("sleep 2")
	s.PutMessage(ctx, t, c)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.Start(ctx, &repb.ExecuteRequest{ActionDigest: s.PutMessage(ctx, t, s.Action(t, c, s.Empty()))})
	if err != nil {
		t.Fatalf("Execute: %v", err)
	}
	op, err := stream.Recv()
	if err != nil {
		t.Fatalf("Execute, first operation: %v", err)
	}
	if op.Done {
		t.Errorf("the first operation of an action that sleeps is done already: nothing came before its end")
	}
	if op.Name == "" {
		t.Errorf("the first operation has no name")
	}
	_ = follow(t, stream)
}

func checkStages(ctx context.Context, t T, s *Subject) {
	r := s.ExecuteShell(ctx, t, "sleep 0.3")
	s.Result(ctx, t, r, 0)
	last := repb.ExecutionStage_UNKNOWN
	var seen []string
	for _, op := range r.Operations {
		now, _ := stage(t, op)
		seen = append(seen, now.String())
		back := last == repb.ExecutionStage_EXECUTING && now == repb.ExecutionStage_QUEUED
		if now < last && !back || now == repb.ExecutionStage_UNKNOWN {
			t.Errorf("the stages are %v", seen)
		}
		last = now
	}
	if last != repb.ExecutionStage_COMPLETED {
		t.Errorf("the stages end with %s, want COMPLETED: %v", last, seen)
	}
}

func checkDone(ctx context.Context, t T, s *Subject) {
	r := s.ExecuteShell(ctx, t, "echo hello")
	if r.Err != nil || len(r.Operations) == 0 {
		t.Fatalf("the stream of a finished execution carried %d operations and ended with %v, want OK", len(r.Operations), r.Err)
	}
	for i, op := range r.Operations {
		now, _ := stage(t, op)
		final := i == len(r.Operations)-1
		if op.Done != final || (now == repb.ExecutionStage_COMPLETED) != final {
			t.Errorf("operation %d of %d: done is %v in stage %s", i+1, len(r.Operations), op.Done, now)
		}
		if (op.GetResponse() != nil) != final {
			t.Errorf("operation %d of %d: has a response: %v", i+1, len(r.Operations), op.GetResponse() != nil)
		}
	}
}

func checkOneName(ctx context.Context, t T, s *Subject) {
	c := s.Shell("sleep 0.2")
	a := s.Action(t, c, s.Empty())
	r := s.Execute(ctx, t, c, a)
	for _, op := range r.Operations {
		if op.Name == "" || op.Name != r.Operations[0].Name {
			t.Errorf("the operations of one stream are named %q and %q", r.Operations[0].Name, op.Name)
		}
		if _, meta := stage(t, op); !proto.Equal(meta.ActionDigest, s.Digest(wire(t, a))) {
			t.Errorf("operation metadata has action digest %s, want the action's", show(meta.ActionDigest))
		}
	}
}

func checkFailingIsNoError(ctx context.Context, t T, s *Subject) {
	s.Result(ctx, t, s.ExecuteShell(ctx, t, "exit 3"), 3)
}

func checkNoOperationError(ctx context.Context, t T, s *Subject) {
	c := s.Shell(s.nap())
	late := s.Action(t, c, s.Empty())
	late.Timeout = durationpb.New(time.Second)
	missing := s.Action(t, c, s.Unseen())
	for what, a := range map[string]*repb.Action{"a timeout": late, "an absent input root": missing} {
		for _, op := range s.Execute(ctx, t, c, a).Operations {
			if op.GetError() != nil {
				t.Errorf("after %s Operation.error is %v", what, op.GetError())
			}
		}
	}
	for _, op := range s.ExecuteShell(ctx, t, "exit 1").Operations {
		if op.GetError() != nil {
			t.Errorf("after a failing command Operation.error is %v", op.GetError())
		}
	}
}

// begin starts a script and gives the name of its operation and its stream; the stream ends with ctx.
func (s *Subject) begin(ctx context.Context, t T, script string) (string, repb.Execution_ExecuteClient) {
	t.Helper()
	c := s.Shell(script)
	s.PutMessage(ctx, t, c)
	stream, err := s.Start(ctx, &repb.ExecuteRequest{ActionDigest: s.PutMessage(ctx, t, s.Action(t, c, s.Empty()))})
	if err != nil {
		t.Fatalf("Execute: %v", err)
	}
	op, err := stream.Recv()
	if err != nil {
		t.Fatalf("Execute, first operation: %v", err)
	}
	return op.Name, stream
}

func checkWait(ctx context.Context, t T, s *Subject) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name, first := s.begin(ctx, t, "sleep 2; echo waited")
	second, err := s.Execution.WaitExecution(ctx, &repb.WaitExecutionRequest{Name: name})
	if err != nil {
		t.Fatalf("WaitExecution: %v", err)
	}
	op, err := second.Recv()
	if err != nil {
		t.Fatalf("WaitExecution, first message: %v", err)
	}
	if op.Done || op.Name != name {
		t.Errorf("WaitExecution of a running execution begins with %s, done %v, want %s at once, not done", op.Name, op.Done, name)
	}
	a, b := follow(t, first), follow(t, second)
	if a.Response == nil || b.Response == nil || !proto.Equal(a.Response.Result, b.Response.Result) {
		t.Errorf("Execute ended with %v, %v and WaitExecution with %v, %v", a.Response, a.Err, b.Response, b.Err)
	}
}

func checkWaitBroken(ctx context.Context, t T, s *Subject) {
	broken, cut := context.WithCancel(ctx)
	name, _ := s.begin(broken, t, "sleep 2; echo waited")
	cut()
	stream, err := s.Execution.WaitExecution(ctx, &repb.WaitExecutionRequest{Name: name})
	if err != nil {
		t.Fatalf("WaitExecution: %v", err)
	}
	result := s.Result(ctx, t, follow(t, stream), 0)
	if got := s.stdout(ctx, t, result); got != "waited\n" {
		t.Errorf("WaitExecution after a broken stream gave stdout %q", got)
	}
}

func checkWaitUnknown(ctx context.Context, t T, s *Subject) {
	for _, name := range []string{s.unknownOperation(), newUUID(), ""} {
		stream, err := s.Execution.WaitExecution(ctx, &repb.WaitExecutionRequest{Name: name})
		if err == nil {
			_, err = stream.Recv()
		}
		wantCode(t, err, fmt.Sprintf("WaitExecution of %q", name), codes.NotFound)
	}
}

func checkKeepAlive(ctx context.Context, t T, s *Subject) {
	seconds := strings.TrimSuffix(fmt.Sprintf("%.1f", (5*s.keepAlive/2).Seconds()), ".0")
	_, stream := s.begin(ctx, t, "sleep "+seconds)
	last := time.Now()
	for {
		op, err := stream.Recv()
		if err != nil {
			t.Fatalf("Execute of an action that sleeps %s s: %v", seconds, err)
		}
		if now, _ := stage(t, op); time.Since(last) > s.keepAlive && now != repb.ExecutionStage_QUEUED {
			t.Errorf("the stream was silent for %s", time.Since(last))
		}
		if last = time.Now(); op.Done {
			return
		}
	}
}
