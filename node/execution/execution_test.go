package execution

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/node/reapi"
)

func good() ending {
	return ending{outcome: &flight.Outcome{Result: &repb.ActionResult{StdoutRaw: []byte("hello")}, Message: "ran here"}}
}

func TestExecute(t *testing.T) {
	l := newLab(t, nil)
	q := l.request(t, "a")
	about, err := proto.Marshal(&repb.RequestMetadata{ToolInvocationId: "i1", ActionMnemonic: "CppCompile"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "build.bazel.remote.execution.v2.requestmetadata-bin", string(about))
	stream := l.execute(t, ctx, q)
	op, m := next(t, stream)
	if op.Done || !strings.HasPrefix(op.Name, "operations/") || !proto.Equal(m.ActionDigest, q.ActionDigest) {
		t.Errorf("first operation %v, %v", op, m)
	}
	r := <-l.executor.runs
	f, _ := l.flights.Find(op.Name)
	if meta := f.Request().Meta; meta.Invocation != "i1" || meta.Mnemonic != "CppCompile" {
		t.Errorf("the flight knows of its client: %+v", meta)
	}
	r.observer.Output("/out", "/err")
	stage := m.Stage
	for m.StdoutStreamName == "" {
		_, m = next(t, stream)
		if m.Stage < stage {
			t.Errorf("stage %v after %v", m.Stage, stage)
		}
		stage = m.Stage
	}
	if stage != repb.ExecutionStage_EXECUTING || m.StderrStreamName != "node/logstreams/err" || m.PartialExecutionMetadata.GetQueuedTimestamp() == nil {
		t.Errorf("while it runs: %v", m)
	}
	r.end <- good()
	op, response := last(t, stream)
	if !op.Done || response.CachedResult || response.Message != "ran here" || string(response.Result.StdoutRaw) != "hello" || response.Status.GetCode() != 0 {
		t.Errorf("response %v", response)
	}
}

func TestWaitExecution(t *testing.T) {
	l := newLab(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := l.execute(t, ctx, l.request(t, "a"))
	op, _ := next(t, first)
	r := <-l.executor.runs
	cancel() // the client loses its connection
	again, err := l.execution.WaitExecution(t.Context(), &repb.WaitExecutionRequest{Name: op.Name})
	if err != nil {
		t.Fatal(err)
	}
	if found, m := next(t, again); found.Name != op.Name || m.Stage != repb.ExecutionStage_EXECUTING {
		t.Errorf("present state %v, %v", found, m)
	}
	r.end <- good()
	if _, response := last(t, again); response.Message != "ran here" {
		t.Errorf("response %v", response)
	}
	late, err := l.execution.WaitExecution(t.Context(), &repb.WaitExecutionRequest{Name: op.Name})
	if err != nil {
		t.Fatal(err)
	}
	if _, response := last(t, late); response.Message != "ran here" {
		t.Errorf("response to a late one %v", response)
	}
	unknown, err := l.execution.WaitExecution(t.Context(), &repb.WaitExecutionRequest{Name: "operations/none"})
	if err != nil {
		t.Fatal(err)
	}
	if code := refused(t, unknown); code != codes.NotFound {
		t.Errorf("unknown name: %v", code)
	}
}

func TestKeepAlive(t *testing.T) {
	l := newLab(t, func(_ *flight.Options, o *Options) { o.KeepAlive = time.Millisecond })
	stream := l.execute(t, t.Context(), l.request(t, "a"))
	r := <-l.executor.runs
	repeats, stage := 0, repb.ExecutionStage_UNKNOWN
	for repeats < 5 { // a state that stays is sent again and again
		if _, m := next(t, stream); m.Stage == stage {
			repeats++
		} else {
			stage = m.Stage
		}
	}
	r.end <- good()
	last(t, stream)
}

func TestExecuteRefuses(t *testing.T) {
	l := newLab(t, func(o *flight.Options, _ *Options) {
		o.Match = func(r platform.Request) error { return r.Match(platform.Offer{}) }
	})
	lost := digest.SHA256.Of([]byte("an action that nobody has"))
	command, err := proto.Marshal(&repb.Command{Arguments: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	picky, err := proto.Marshal(&repb.Action{
		CommandDigest: l.blobs.put(command).Proto(), InputRootDigest: digest.SHA256.Empty().Proto(),
		Platform: &repb.Platform{Properties: []*repb.Platform_Property{{Name: "Pool", Value: "gpu"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		request *repb.ExecuteRequest
		code    codes.Code
	}{
		"no digest":            {&repb.ExecuteRequest{}, codes.InvalidArgument},
		"malformed digest":     {&repb.ExecuteRequest{ActionDigest: &repb.Digest{Hash: "x"}}, codes.InvalidArgument},
		"unsupported function": {&repb.ExecuteRequest{ActionDigest: lost.Proto(), DigestFunction: repb.DigestFunction_MD5}, codes.InvalidArgument},
		"reserved instance":    {&repb.ExecuteRequest{ActionDigest: lost.Proto(), InstanceName: "a/blobs"}, codes.InvalidArgument},
		"platform of nobody":   {&repb.ExecuteRequest{ActionDigest: l.blobs.put(picky).Proto()}, codes.FailedPrecondition},
		"missing action":       {&repb.ExecuteRequest{ActionDigest: lost.Proto()}, codes.FailedPrecondition},
	} {
		if code := refused(t, l.execute(t, t.Context(), c.request)); code != c.code {
			t.Errorf("%s: %v, want %v", name, code, c.code)
		}
	}
	_, err = l.execute(t, t.Context(), &repb.ExecuteRequest{ActionDigest: lost.Proto()}).Recv()
	var subjects []string
	for _, detail := range status.Convert(err).Details() {
		if p, ok := detail.(*errdetails.PreconditionFailure); ok {
			for _, v := range p.Violations {
				subjects = append(subjects, v.Type+" "+v.Subject)
			}
		}
	}
	if want := "MISSING blobs/" + lost.String(); len(subjects) != 1 || subjects[0] != want {
		t.Errorf("violations %q, want %q", subjects, want)
	}
}

func TestErrorWhileRunningStandsInTheResponse(t *testing.T) {
	l := newLab(t, nil)
	lost := digest.SHA256.Of([]byte("an input that was evicted"))
	stream := l.execute(t, t.Context(), l.request(t, "a"))
	(<-l.executor.runs).end <- ending{err: fmt.Errorf("load: %w", &action.MissingError{Digests: []digest.Digest{lost}})}
	_, response := last(t, stream)
	s := status.FromProto(response.Status)
	if s.Code() != codes.FailedPrecondition || len(s.Details()) != 1 {
		t.Errorf("status %v", s)
	}
}

func TestInline(t *testing.T) {
	const limit = 3000
	l := newLab(t, func(_ *flight.Options, o *Options) { o.MaxInline = limit })
	stdout, small, large := l.blobs.put([]byte("out")), l.blobs.put([]byte("small")), l.blobs.put(make([]byte, limit))
	lost := digest.SHA256.Of([]byte("gone"))
	result := &repb.ActionResult{
		StdoutDigest: stdout.Proto(), StderrDigest: lost.Proto(),
		OutputFiles: []*repb.OutputFile{{Path: "small", Digest: small.Proto()}, {Path: "large", Digest: large.Proto()}, {Path: "other", Digest: small.Proto()}},
	}
	plain := l.request(t, "a")
	asking := proto.CloneOf(plain)
	asking.InlineStdout, asking.InlineStderr, asking.InlineOutputFiles = true, true, []string{"large", "small", "none"}
	first, second := l.execute(t, t.Context(), plain), l.execute(t, t.Context(), asking)
	next(t, first)
	next(t, second)
	(<-l.executor.runs).end <- ending{outcome: &flight.Outcome{Result: result}}
	_, bare := last(t, first)
	_, full := last(t, second)
	if len(bare.Result.StdoutRaw) != 0 || len(bare.Result.OutputFiles[0].Contents) != 0 {
		t.Errorf("inlined without being asked: %v", bare)
	}
	files := full.Result.OutputFiles
	if string(full.Result.StdoutRaw) != "out" || string(files[0].Contents) != "small" || len(full.Result.StderrRaw) != 0 ||
		len(files[1].Contents) != 0 || len(files[2].Contents) != 0 {
		t.Errorf("inlined %v", full.Result)
	}
	if n := proto.Size(full); n > limit {
		t.Errorf("the response has %d bytes", n)
	}
	broken := l.execute(t, t.Context(), asking)
	next(t, broken)
	r := <-l.executor.runs
	l.blobs.fail(errors.New("disk on fire"))
	r.end <- ending{outcome: &flight.Outcome{Result: result}}
	if _, response := last(t, broken); len(response.Result.GetOutputFiles()) != 3 {
		t.Errorf("with a store that fails: %v", response)
	}
}

func TestCancelOperation(t *testing.T) {
	l := newLab(t, nil)
	stream := l.execute(t, t.Context(), l.request(t, "a"))
	op, _ := next(t, stream)
	r := <-l.executor.runs
	if _, err := l.operations.CancelOperation(t.Context(), &longrunningpb.CancelOperationRequest{Name: op.Name}); err != nil {
		t.Fatal(err)
	}
	if _, response := last(t, stream); codes.Code(response.Status.GetCode()) != codes.Canceled {
		t.Errorf("response %v", response)
	}
	if !errors.Is(context.Cause(r.ctx), flight.ErrCancelled) {
		t.Errorf("the run ended by %v", context.Cause(r.ctx))
	}
	_, err := l.operations.CancelOperation(t.Context(), &longrunningpb.CancelOperationRequest{Name: "operations/none"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("unknown name: %v", err)
	}
}

func TestGetWaitDelete(t *testing.T) {
	l := newLab(t, nil)
	op, _ := next(t, l.execute(t, t.Context(), l.request(t, "a")))
	r := <-l.executor.runs
	got, err := l.operations.GetOperation(t.Context(), &longrunningpb.GetOperationRequest{Name: op.Name})
	if err != nil || got.Done || metadataOf(t, got).Stage != repb.ExecutionStage_EXECUTING {
		t.Errorf("get: %v, %v", got, err)
	}
	got, err = l.operations.WaitOperation(t.Context(), &longrunningpb.WaitOperationRequest{Name: op.Name, Timeout: durationpb.New(time.Millisecond)})
	if err != nil || got.Done {
		t.Errorf("wait for a moment: %v, %v", got, err)
	}
	r.end <- good()
	got, err = l.operations.WaitOperation(t.Context(), &longrunningpb.WaitOperationRequest{Name: op.Name})
	if err != nil || !got.Done || responseOf(t, got).Message != "ran here" {
		t.Errorf("wait for the end: %v, %v", got, err)
	}
	_, err = l.operations.WaitOperation(t.Context(), &longrunningpb.WaitOperationRequest{Name: op.Name, Timeout: &durationpb.Duration{Seconds: 1, Nanos: -1}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("malformed timeout: %v", err)
	}
	if _, err := l.operations.DeleteOperation(t.Context(), &longrunningpb.DeleteOperationRequest{Name: op.Name}); err != nil {
		t.Error(err)
	}
	_, gone := l.operations.GetOperation(t.Context(), &longrunningpb.GetOperationRequest{Name: op.Name})
	_, waited := l.operations.WaitOperation(t.Context(), &longrunningpb.WaitOperationRequest{Name: op.Name})
	_, deleted := l.operations.DeleteOperation(t.Context(), &longrunningpb.DeleteOperationRequest{Name: op.Name})
	for call, err := range map[string]error{"get": gone, "wait": waited, "delete": deleted} {
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s of a deleted name: %v", call, err)
		}
	}
}

func TestListOperations(t *testing.T) {
	l := newLab(t, nil)
	var want []string
	for i := range 5 {
		op, _ := next(t, l.execute(t, t.Context(), l.request(t, fmt.Sprint(i))))
		<-l.executor.runs
		want = append(want, op.Name)
	}
	var got []string
	q := &longrunningpb.ListOperationsRequest{Name: "operations", PageSize: 2}
	for pages := 1; ; pages++ {
		page, err := l.operations.ListOperations(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range page.Operations {
			metadataOf(t, op)
			got = append(got, op.Name)
		}
		if pages == 1 { // the token stays good when what it points to goes
			if _, err := l.operations.DeleteOperation(t.Context(), &longrunningpb.DeleteOperationRequest{Name: want[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("listed %q, want %q", got, want)
	}
	for name, bad := range map[string]*longrunningpb.ListOperationsRequest{
		"another collection": {Name: "projects"}, "filter": {Filter: "done"}, "page size": {PageSize: -1}, "token": {PageToken: "x"},
	} {
		if _, err := l.operations.ListOperations(t.Context(), bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCodesOfFlights pins what a client is told when a flight cannot begin or go on.
func TestCodesOfFlights(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code codes.Code
	}{
		"missing":     {&action.MissingError{Digests: []digest.Digest{digest.SHA256.Of([]byte("x"))}}, codes.FailedPrecondition},
		"invalid":     {&action.InvalidError{Field: "arguments", Reason: "is empty"}, codes.InvalidArgument},
		"unsupported": {&action.UnsupportedError{Property: "Pool", Err: errors.New("none")}, codes.FailedPrecondition},
		"cancelled":   {flight.ErrCancelled, codes.Canceled},
		"abandoned":   {flight.ErrAbandoned, codes.Canceled},
		"full":        {flight.ErrFull, codes.ResourceExhausted},
		"closed":      {flight.ErrClosed, codes.Unavailable},
		"panic":       {&flight.PanicError{Value: 1}, codes.Internal},
		"unknown":     {&unknownError{name: "x"}, codes.NotFound},
	} {
		if got := status.Code(reapi.Status(fmt.Errorf("execute: %w", c.err))); got != c.code {
			t.Errorf("%s: %v, want %v", name, got, c.code)
		}
	}
}

func FuzzPageToken(f *testing.F) {
	f.Add("12,operations/x")
	f.Add(",")
	f.Fuzz(func(t *testing.T, token string) {
		if p, err := parsePage(token); err == nil && token != "" {
			if again, err := parsePage(p.String()); err != nil || again != p {
				t.Errorf("%q is %+v and then %+v, %v", token, p, again, err)
			}
		}
	})
}
