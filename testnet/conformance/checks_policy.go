package conformance

import (
	"context"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// once is a script whose output differs in every run of it.
const once = "od -An -N16 -tx1 /dev/urandom"

// policyChecks hold of what is cached, merged, timed and told about an execution.
func policyChecks() []Check { return append(cachingChecks(), tellingChecks()...) }

func cachingChecks() []Check {
	exec, cached := []Feature{Execution}, []Feature{Execution, Cache}
	return []Check{
		{
			Claim: "a_success_is_cached", Needs: cached, Level: Should, Run: checkSuccessCached, Source: "message Action: clients SHOULD expect the server to do so",
			Rule: "a second Execute says cached_result, and GetActionResult has the result",
		},
		{
			Claim: "a_failure_is_never_cached", Needs: cached, Run: checkFailureCached, Source: "Bazel takes a cached result for a success of the tool and fails ever after",
			Rule: "an exit code other than 0 leaves no result: it is looked up in vain and executed again",
		},
		{
			Claim: "an_error_is_never_cached", Needs: cached, Run: checkErrorCached, Source: "ExecuteResponse.status: MUST NOT be cached",
			Rule: "a timed out execution leaves no result",
		},
		{
			Claim: "do_not_cache_is_not_cached", Needs: cached, Run: checkDoNotCache, Source: "Action.do_not_cache",
			Rule: "the result is neither stored nor looked up",
		},
		{
			Claim: "do_not_cache_is_not_merged", Needs: exec, Run: checkDoNotMerge, Source: "Action.do_not_cache: in-flight requests may not be merged",
			Rule: "two concurrent executions of such an action are two",
		},
		{
			Claim: "equal_actions_in_flight_are_merged", Needs: exec, Level: Should, Run: checkMerged, Source: "ExecuteRequest.skip_cache_lookup: allowed to be merged",
			Rule: "a second Execute of an action that is running gets that run's result",
		},
		{
			Claim: "skip_cache_lookup_executes", Needs: exec, Run: checkSkipLookup, Source: "ExecuteRequest.skip_cache_lookup",
			Rule: "the result was not visible before the request",
		},
		{
			Claim: "skip_cache_lookup_overwrites", Needs: cached, Level: Should, Run: checkSkipOverwrites, Source: "ExecuteRequest.skip_cache_lookup: SHOULD overwrite",
			Rule: "the new result replaces the cached one",
		},
	}
}

func tellingChecks() []Check {
	exec := []Feature{Execution}
	return []Check{
		{
			Claim: "a_timeout_is_DEADLINE_EXCEEDED", Needs: exec, Run: checkTimeout, Source: "Action.timeout; ExecuteResponse.status",
			Rule: "the command is killed at its timeout, and the response's status says DEADLINE_EXCEEDED",
		},
		{
			Claim: "a_timeout_kills_the_children_too", Needs: exec, Run: checkTimeoutChildren, Source: "Action.timeout",
			Rule: "processes in the background do not hold the execution up",
		},
		{
			Claim: "a_timeout_above_the_maximum_is_INVALID_ARGUMENT", Needs: exec, Level: Should, Run: checkTimeoutMaximum, Source: "Action.timeout: MUST reject",
			Rule: "a timeout of a hundred years is above any server's maximum",
		},
		{
			Claim: "a_timeout_of_hours_is_accepted", Needs: exec, Run: checkTimeoutLong, Source: "BuildStream builds for hours; Bazel's eternal tests ask for one",
			Rule: "an hour is below every server's maximum, and no timeout at all is fine",
		},
		{
			Claim: "timestamps_are_ordered", Needs: exec, Run: checkTimestampOrder, Source: "message ExecutedActionMetadata",
			Rule: "queued, worker start, fetch start and end, execution start and end, upload start and end, worker end: in that order, as far as set",
		},
		{
			Claim: "timestamps_are_all_set", Needs: exec, Level: Should, Run: checkTimestampsSet, Source: "message ExecutedActionMetadata; Bazel's profile shows them",
			Rule: "all nine are set, and an action that sleeps takes its time between execution start and end",
		},
		{
			Claim: "the_worker_is_named", Needs: exec, Level: Should, Run: checkWorker, Source: "ExecutedActionMetadata.worker",
			Rule: "worker is not empty",
		},
		{
			Claim: "resource_usage_is_told", Needs: exec, Level: Should, Run: checkUsage, Source: "ExecutedActionMetadata.auxiliary_metadata",
			Rule: "auxiliary_metadata has a message about what the execution used",
		},
		{
			Claim: "the_response_says_where_it_ran", Needs: exec, Level: Should, Run: checkMessage, Source: "ExecuteResponse.message",
			Rule: "message or server_logs tell a person where and why there",
		},
		{
			Claim: "a_second_execution_does_not_clobber_the_first", Needs: exec, Run: checkAttempts, Source: "rpc Execute: MAY execute multiple times, potentially in parallel",
			Rule: "two executions of one action at a time have directories of their own",
		},
		{
			Claim: "results_use_the_function_of_the_action", Needs: exec, Run: checkResultFunction, Source: "ExecutionCapabilities.digest_functions",
			Rule: "an action in BLAKE3 has outputs, trees and stdout in BLAKE3",
		},
	}
}

// said is what a run of a script printed.
func (s *Subject) said(ctx context.Context, t T, r Run) string {
	t.Helper()
	return strings.TrimSpace(s.stdout(ctx, t, s.Result(ctx, t, r, 0)))
}

// newAction uploads a new action of a script and gives its digest.
func (s *Subject) newAction(ctx context.Context, t T, script string, change ...func(*repb.Action)) *repb.Digest {
	t.Helper()
	c := s.Shell(script)
	s.PutMessage(ctx, t, c)
	a := s.Action(t, c, s.Empty())
	for _, f := range change {
		f(a)
	}
	return s.PutMessage(ctx, t, a)
}

func checkSuccessCached(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, once)
	first := s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}))
	r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})
	if again := s.said(ctx, t, r); again != first || !r.Response.CachedResult {
		t.Errorf("the second Execute ran again (cached_result %v)", r.Response.CachedResult)
	}
	if _, err := s.lookup(ctx, d); err != nil {
		t.Errorf("GetActionResult after a successful execution: %v", err)
	}
}

func checkFailureCached(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, once+"; exit 1")
	first := s.Result(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}), 1)
	_, err := s.lookup(ctx, d)
	wantCode(t, err, "GetActionResult after an execution that exited with 1", codes.NotFound)
	r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})
	again := s.Result(ctx, t, r, 1)
	if r.Response.CachedResult || s.stdout(ctx, t, again) == s.stdout(ctx, t, first) {
		t.Errorf("the second Execute of an action that failed was served from the cache")
	}
}

func checkErrorCached(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, s.nap(), func(a *repb.Action) { a.Timeout = durationpb.New(time.Second) })
	if r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}); r.Code() == codes.OK {
		t.Errorf("an execution that was killed at its timeout has status OK")
	}
	_, err := s.lookup(ctx, d)
	wantCode(t, err, "GetActionResult after an execution that timed out", codes.NotFound)
}

func checkDoNotCache(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, once, func(a *repb.Action) { a.DoNotCache = true })
	first := s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}))
	_, err := s.lookup(ctx, d)
	wantCode(t, err, "GetActionResult of an executed action with do_not_cache", codes.NotFound)
	r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})
	if s.said(ctx, t, r) == first || r.Response.CachedResult {
		t.Errorf("the second Execute of an action with do_not_cache was served from the cache")
	}
}

// pair executes an action twice at a time: the second begins while the first sleeps.
func (s *Subject) pair(ctx context.Context, t T, d *repb.Digest) (Run, Run) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := s.Start(ctx, &repb.ExecuteRequest{ActionDigest: d})
	if err != nil {
		t.Fatalf("Execute: %v", err)
	}
	if _, err := first.Recv(); err != nil {
		t.Fatalf("Execute, first operation: %v", err)
	}
	second := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})
	return follow(t, first), second
}

func checkDoNotMerge(ctx context.Context, t T, s *Subject) {
	a, b := s.pair(ctx, t, s.newAction(ctx, t, "sleep 1; "+once, func(a *repb.Action) { a.DoNotCache = true }))
	if s.said(ctx, t, a) == s.said(ctx, t, b) {
		t.Errorf("two concurrent executions of an action with do_not_cache gave one result")
	}
}

func checkMerged(ctx context.Context, t T, s *Subject) {
	a, b := s.pair(ctx, t, s.newAction(ctx, t, "sleep 2; "+once))
	if s.said(ctx, t, a) != s.said(ctx, t, b) {
		t.Errorf("two concurrent executions of one action ran separately")
	}
}

func checkSkipLookup(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, once)
	first := s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}))
	r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d, SkipCacheLookup: true})
	if s.said(ctx, t, r) == first || r.Response.CachedResult {
		t.Errorf("Execute with skip_cache_lookup was served from the cache")
	}
}

func checkSkipOverwrites(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, once)
	s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}))
	second := s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d, SkipCacheLookup: true}))
	third := s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}))
	if third != second {
		t.Errorf("after Execute with skip_cache_lookup the cache does not serve its result")
	}
}

// timesOut executes a script with a timeout of a second and wants DEADLINE_EXCEEDED soon.
func (s *Subject) timesOut(ctx context.Context, t T, script string) {
	t.Helper()
	d := s.newAction(ctx, t, script, func(a *repb.Action) { a.Timeout = durationpb.New(time.Second) })
	began := time.Now()
	r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})
	if r.Err != nil || r.Code() != codes.DeadlineExceeded {
		t.Errorf("an action past its timeout ended with %v and status %s (%s), want ExecuteResponse.status DeadlineExceeded", r.Err, r.Code(), r.Why())
	}
	if took := time.Since(began); took > s.patience*5/12 {
		t.Errorf("an action with a timeout of a second ended after %s", took)
	}
}

func checkTimeout(ctx context.Context, t T, s *Subject) { s.timesOut(ctx, t, s.nap()) }

func checkTimeoutChildren(ctx context.Context, t T, s *Subject) {
	s.timesOut(ctx, t, "("+s.nap()+"; echo a) & (trap '' TERM; "+s.nap()+"; echo b) & wait; echo c")
}

func checkTimeoutMaximum(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, "true", func(a *repb.Action) { a.Timeout = durationpb.New(100 * 365 * 24 * time.Hour) })
	if r := s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d}); r.Code() != codes.InvalidArgument {
		t.Errorf("a timeout of a hundred years ended with %s (%s), want InvalidArgument", r.Code(), r.Why())
	}
}

func checkTimeoutLong(ctx context.Context, t T, s *Subject) {
	for _, timeout := range []*durationpb.Duration{nil, durationpb.New(time.Hour)} {
		d := s.newAction(ctx, t, "echo ok", func(a *repb.Action) { a.Timeout = timeout })
		if got := s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})); got != "ok" {
			t.Errorf("an action with timeout %v printed %q", timeout, got)
		}
	}
}

// moment is a timestamp of an execution by its name.
type moment struct {
	name string
	time *timestamppb.Timestamp
}

// moments lists the timestamps in the order in which they are taken.
func moments(meta *repb.ExecutedActionMetadata) []moment {
	return []moment{
		{"queued_timestamp", meta.GetQueuedTimestamp()},
		{"worker_start_timestamp", meta.GetWorkerStartTimestamp()},
		{"input_fetch_start_timestamp", meta.GetInputFetchStartTimestamp()},
		{"input_fetch_completed_timestamp", meta.GetInputFetchCompletedTimestamp()},
		{"execution_start_timestamp", meta.GetExecutionStartTimestamp()},
		{"execution_completed_timestamp", meta.GetExecutionCompletedTimestamp()},
		{"output_upload_start_timestamp", meta.GetOutputUploadStartTimestamp()},
		{"output_upload_completed_timestamp", meta.GetOutputUploadCompletedTimestamp()},
		{"worker_completed_timestamp", meta.GetWorkerCompletedTimestamp()},
	}
}

func checkTimestampOrder(ctx context.Context, t T, s *Subject) {
	last := moment{"the epoch", &timestamppb.Timestamp{}}
	for _, m := range moments(s.Result(ctx, t, s.ExecuteShell(ctx, t, "true"), 0).GetExecutionMetadata()) {
		if m.time == nil {
			continue
		}
		if m.time.AsTime().Before(last.time.AsTime()) {
			t.Errorf("%s %s is before %s %s", m.name, m.time.AsTime(), last.name, last.time.AsTime())
		}
		last = m
	}
}

func checkTimestampsSet(ctx context.Context, t T, s *Subject) {
	meta := s.Result(ctx, t, s.ExecuteShell(ctx, t, "sleep 0.1"), 0).GetExecutionMetadata()
	for _, m := range moments(meta) {
		if m.time == nil {
			t.Errorf("%s is not set", m.name)
		}
	}
	if ran := meta.GetExecutionCompletedTimestamp().AsTime().Sub(meta.GetExecutionStartTimestamp().AsTime()); ran < 90*time.Millisecond {
		t.Errorf("an action that sleeps 100 ms has execution timestamps %s apart", ran)
	}
}

func checkWorker(ctx context.Context, t T, s *Subject) {
	if s.Result(ctx, t, s.ExecuteShell(ctx, t, "true"), 0).GetExecutionMetadata().GetWorker() == "" {
		t.Errorf("execution_metadata.worker is empty")
	}
}

func checkUsage(ctx context.Context, t T, s *Subject) {
	if len(s.Result(ctx, t, s.ExecuteShell(ctx, t, "true"), 0).GetExecutionMetadata().GetAuxiliaryMetadata()) == 0 {
		t.Errorf("execution_metadata.auxiliary_metadata is empty")
	}
}

func checkMessage(ctx context.Context, t T, s *Subject) {
	r := s.ExecuteShell(ctx, t, "exit 1")
	s.Result(ctx, t, r, 1)
	if r.Response.Message == "" && len(r.Response.ServerLogs) == 0 {
		t.Errorf("the response of a failed command has neither message nor server_logs")
	}
}

func checkAttempts(ctx context.Context, t T, s *Subject) {
	script := "test ! -e mark || exit 9; " + once + " > mark; cp mark before; sleep 1; cmp before mark && cat mark"
	a, b := s.pair(ctx, t, s.newAction(ctx, t, script, func(a *repb.Action) { a.DoNotCache = true }))
	if s.said(ctx, t, a) == s.said(ctx, t, b) {
		t.Errorf("two executions at a time printed the same: they share a directory, or were merged")
	}
}

func checkResultFunction(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		if !executes(s, f) {
			continue
		}
		s := s.With(f)
		root := s.Root(ctx, t, map[string]string{"in/a": "content of a\n", "in/empty": ""})
		c := s.Shell("cat in/a in/empty; mkdir d; cp in/a d/b; cp in/a c; echo oops >&2", "c", "d")
		result := s.Result(ctx, t, s.Execute(ctx, t, c, s.Action(t, c, root)), 0)
		s.wantFile(ctx, t, result, "c", "content of a\n")
		if out, errs := s.stdout(ctx, t, result), s.stderr(ctx, t, result); out != "content of a\n" || errs != "oops\n" {
			t.Errorf("%s: stdout %q, stderr %q", f, out, errs)
		}
		s.wantTree(ctx, t, result, "d", map[string]string{"b": "content of a\n"})
	}
}

// executes reports whether execution offers digest function f.
func executes(s *Subject, f Function) bool {
	exec := s.Capabilities.GetExecutionCapabilities()
	for _, v := range append(exec.GetDigestFunctions(), exec.GetDigestFunction()) {
		if v == f.Proto() {
			return true
		}
	}
	return false
}
