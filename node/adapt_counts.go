package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/node/web"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// counts counts executions by how they ended, for the status and the metrics.
type counts struct {
	metrics *web.Metrics
	ended   map[web.Outcome]*atomic.Int64 // the map itself never changes
}

func newCounts(m *web.Metrics) *counts {
	c := &counts{metrics: m, ended: make(map[web.Outcome]*atomic.Int64)}
	for _, o := range []web.Outcome{web.Succeeded, web.Failed, web.Fault, web.Cancelled, web.Cached, web.Merged} {
		c.ended[o] = new(atomic.Int64)
	}
	return c
}

// end counts one execution.
func (c *counts) end(o web.Outcome) {
	c.ended[o].Add(1)
	c.metrics.Action(o)
}

// status is the counts as the control API gives them.
func (c *counts) status() *controlv1.Actions {
	return &controlv1.Actions{
		Succeeded: c.ended[web.Succeeded].Load(), Failed: c.ended[web.Failed].Load(), Faults: c.ended[web.Fault].Load(),
		Cancelled: c.ended[web.Cancelled].Load(), Cached: c.ended[web.Cached].Load(), Merged: c.ended[web.Merged].Load(),
	}
}

// countedExecutor counts what an executor runs and how long its parts take. A run that is given up for another's is no end.
type countedExecutor struct {
	flight.Executor
	counts *counts
}

// Execute implements flight.Executor.
func (e countedExecutor) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	outcome, err := e.Executor.Execute(ctx, a, o)
	if !errors.Is(context.Cause(ctx), flight.ErrMerged) {
		e.counts.end(outcomeOf(ctx, outcome, err))
	}
	if err == nil {
		m := outcome.Result.GetExecutionMetadata()
		e.phase(web.Staging, m.GetInputFetchStartTimestamp(), m.GetInputFetchCompletedTimestamp())
		e.phase(web.Running, m.GetExecutionStartTimestamp(), m.GetExecutionCompletedTimestamp())
		e.phase(web.Storing, m.GetOutputUploadStartTimestamp(), m.GetOutputUploadCompletedTimestamp())
	}
	return outcome, err
}

// phase notes the time between two moments, when both are known.
func (e countedExecutor) phase(p web.Phase, from, to *timestamppb.Timestamp) {
	if from != nil && to != nil {
		e.counts.metrics.Phase(p, to.AsTime().Sub(from.AsTime()))
	}
}

// outcomeOf sorts the end of an execution: an action that reached a limit ran and failed.
func outcomeOf(ctx context.Context, outcome *flight.Outcome, err error) web.Outcome {
	var timeout *run.TimeoutError
	var resource *run.ResourceError
	switch {
	case ctx.Err() != nil:
		return web.Cancelled
	case errors.As(err, &timeout), errors.As(err, &resource):
		return web.Failed
	case err != nil:
		return web.Fault
	case outcome.Result.GetExitCode() != 0:
		return web.Failed
	}
	return web.Succeeded
}

// countedPlacer notes how long actions wait for a place.
type countedPlacer struct {
	flight.Placer
	counts *counts
}

// Place implements flight.Placer.
func (p countedPlacer) Place(ctx context.Context, a *action.Action, r flight.Request) (flight.Executor, func(), error) {
	began := time.Now()
	executor, release, err := p.Placer.Place(ctx, a, r)
	if err == nil {
		p.counts.metrics.Phase(web.Queued, time.Since(began))
	}
	return executor, release, err
}
