package flight

import (
	"context"
	"errors"
	"runtime/debug"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/exec/action"
)

// Merger has an action that several nodes run at the same time be run once.
type Merger interface {
	// Begin gives what becomes of an action that is about to run here; nil: it is nobody else's business.
	Begin(ctx context.Context, a *action.Action, r Request) Merge
}

// Merge is an action that other nodes may run too. Its methods are called one after the other.
type Merge interface {
	// Running says that it runs here from now on. earlier is called, once at most and from any goroutine, when another node
	// began before and its result is to be awaited instead.
	Running(earlier func())
	// Await waits for the result of that node: complete, and kept in the cache; it must not be changed. An error, however
	// soon, says why it is to be run here. from names the node.
	Await(ctx context.Context) (r *repb.ActionResult, from string, err error)
	// End says that it is over; made: what it made here is in the cache.
	End(made bool)
}

// alone is the Merge of what is run whatever others do.
type alone struct{}

func (alone) Running(func())                                            {}
func (alone) Await(context.Context) (*repb.ActionResult, string, error) { return nil, "", ErrNotCached }
func (alone) End(bool)                                                  {}

// merge is how f stands with other nodes. Who wants a result of a run of their own gets one.
func (t *Table) merge(ctx context.Context, f *Flight) Merge {
	if t.options.Merger != nil && t.shares(f) {
		if m := t.options.Merger.Begin(ctx, f.action, f.request); m != nil {
			return m
		}
	}
	return alone{}
}

// shares reports whether a result of another run may answer a flight.
func (t *Table) shares(f *Flight) bool {
	return t.options.Results != nil && !f.request.SkipCacheLookup && !f.action.DoNotCache
}

// execute has the action run, here or wherever a place is found for it, unless another node began before and brings its
// result. Each time that comes to nothing it runs anew; vain says why it did the last time, if it did.
func (t *Table) execute(ctx context.Context, f *Flight, m Merge, queued *timestamppb.Timestamp) (outcome *Outcome, vain, err error) {
	defer func() {
		if v := recover(); v != nil {
			outcome, vain, err = nil, nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	for {
		outcome, err = t.attempt(ctx, f, m, queued)
		if !errors.Is(err, ErrMerged) {
			return outcome, vain, err
		}
		r, from, failed := m.Await(ctx)
		if failed == nil {
			return &Outcome{Result: proto.CloneOf(r), Merged: from, Message: whereMerged(r, from)}, vain, nil
		}
		if vain = failed; ctx.Err() != nil {
			return nil, vain, context.Cause(ctx)
		}
	}
}

// whereMerged tells a person whose run was waited for.
func whereMerged(r *repb.ActionResult, from string) string {
	text := "merged with " + from + "'s"
	if by := r.GetExecutionMetadata().GetWorker(); by != "" && by != from {
		text += ", ran on " + by
	}
	return text
}
