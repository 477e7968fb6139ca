package flight

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/slot"
)

// run takes a flight through its stages and gives the response. It never fails and never panics.
func (t *Table) run(ctx context.Context, f *Flight) *repb.ExecuteResponse {
	ending := Ending{Action: f.action, Request: f.request, Created: f.created}
	defer func() { t.options.Ended(ending) }()
	r, found := t.lookup(ctx, f)
	ending.Lookup = found
	if r != nil {
		ending.Response = &repb.ExecuteResponse{Result: r, CachedResult: true, Status: &spb.Status{}, Message: whereFound(r, found.From)}
		return ending.Response
	}
	queued := timestamppb.Now()
	f.update(func(s *State) {
		s.Stage = repb.ExecutionStage_QUEUED
		s.Metadata = &repb.ExecutedActionMetadata{QueuedTimestamp: queued}
	})
	merge := t.merge(ctx, f)
	outcome, vain, err := t.execute(ctx, f, merge, queued)
	if outcome == nil {
		outcome = &Outcome{}
	}
	if err == nil && outcome.Result == nil {
		err = errors.New("the executor brought no result back")
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("execute %s: %w", f.request.Action.Short(), context.Cause(ctx))
	}
	t.complete(outcome, queued)
	made := false
	if err == nil && outcome.Merged == "" {
		var failed error
		if made, failed = t.save(f, outcome); failed != nil { // the result stands; only the next client has to run it again
			outcome.Message = joinText(outcome.Message, "the result was not cached: "+failed.Error())
		}
	}
	merge.End(made)
	ending.Placement, ending.Merged, ending.Vain = outcome.Placement, outcome.Merged, vain
	ending.Response = &repb.ExecuteResponse{
		Result: outcome.Result, Message: outcome.Message, ServerLogs: outcome.ServerLogs, Status: t.status(err),
	}
	return ending.Response
}

// lookup asks the cache. Whatever keeps it from answering counts as a miss: running is always right.
func (t *Table) lookup(ctx context.Context, f *Flight) (r *repb.ActionResult, l Lookup) {
	if !t.shares(f) {
		return nil, Lookup{}
	}
	l.Asked = true
	defer func() {
		if v := recover(); v != nil {
			r, l.Err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	r, l.From, l.Err = t.options.Results.Get(ctx, f.action, f.request.Meta)
	if l.Err != nil {
		return nil, l
	}
	return r, l
}

// whereFound tells a person where a known result comes from.
func whereFound(r *repb.ActionResult, from string) string {
	text := "found here"
	if from != "" {
		text = "found at " + from
	}
	if by := r.GetExecutionMetadata().GetWorker(); by != "" && by != from {
		text += ", ran on " + by
	}
	return text
}

// attempt finds a place for the action and runs it there. It fails with ErrMerged when another node is known to have begun
// before.
func (t *Table) attempt(ctx context.Context, f *Flight, m Merge, queued *timestamppb.Timestamp) (*Outcome, error) {
	executor, release, err := t.options.Placer.Place(ctx, f.action, f.request)
	if err != nil {
		return nil, unsupported(err)
	}
	defer release()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f.enter(repb.ExecutionStage_EXECUTING)
	o := &observer{flight: f, streams: t.options.Streams, queued: queued}
	defer o.close()
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.Running(func() { cancel(ErrMerged) })
	outcome, err := executor.Execute(own, f.action, o)
	if err != nil && errors.Is(context.Cause(own), ErrMerged) {
		return nil, ErrMerged
	}
	return outcome, err
}

// complete adds what the executor cannot know, and makes sure that a result never serialises to nothing.
func (t *Table) complete(o *Outcome, queued *timestamppb.Timestamp) {
	if o.Result == nil {
		return
	}
	if o.Result.ExecutionMetadata == nil {
		o.Result.ExecutionMetadata = &repb.ExecutedActionMetadata{}
	}
	m := o.Result.ExecutionMetadata
	m.QueuedTimestamp = queued
	if m.Worker == "" {
		m.Worker = t.options.Worker
	}
}

// save puts a good result into the cache and reports whether it is there. It has no deadline of the client's: the work is
// done, and a flight that is cancelled in this moment keeps its result.
func (t *Table) save(f *Flight, o *Outcome) (saved bool, err error) {
	if t.options.Results == nil || f.action.DoNotCache || o.Result.ExitCode != 0 {
		return false, nil
	}
	defer func() {
		if v := recover(); v != nil {
			saved, err = false, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = t.options.Results.Put(ctx, f.action, o.Result, o.Signed)
	return err == nil, err
}

// status translates an error for ExecuteResponse.status; nil gives OK.
func (t *Table) status(err error) *spb.Status {
	if err == nil {
		return &spb.Status{}
	}
	return status.Convert(t.options.Status(err)).Proto()
}

// unsupported says with this room's own type that a platform or slot request cannot be fulfilled.
func unsupported(err error) error {
	if e, ok := errors.AsType[*platform.MismatchError](err); ok {
		return &action.UnsupportedError{Property: e.Property, Err: err}
	}
	if e, ok := errors.AsType[*slot.TooLargeError](err); ok {
		return &action.UnsupportedError{Property: e.Property, Err: err}
	}
	return err
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "\n" + b
}

// observer takes an executor's news to its flight.
type observer struct {
	flight  *Flight
	streams Follower
	queued  *timestamppb.Timestamp

	mu     sync.Mutex // guards finish and closed
	finish []func()   // end the streams that were opened
	closed bool
}

// Output makes both files readable while they grow.
func (o *observer) Output(stdoutPath, stderrPath string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.streams == nil || o.closed {
		return
	}
	stdout, endStdout := o.streams.Follow(stdoutPath)
	stderr, endStderr := o.streams.Follow(stderrPath)
	o.finish = append(o.finish, endStdout, endStderr)
	o.flight.update(func(s *State) { s.StdoutStream, s.StderrStream = stdout, stderr })
}

// Metadata shows what is known so far.
func (o *observer) Metadata(m *repb.ExecutedActionMetadata) {
	partial := proto.CloneOf(m)
	partial.QueuedTimestamp = o.queued
	o.flight.update(func(s *State) { s.Metadata = partial })
}

// close ends the streams, after the run.
func (o *observer) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, end := range o.finish {
		end()
	}
}
