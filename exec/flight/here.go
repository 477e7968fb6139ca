package flight

import (
	"context"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/slot"
)

// Here is the Placer of one machine by itself: every action runs with Executor, in a slot of its own.
type Here struct {
	Executor Executor
	Slots    Slots // nil: everything runs at once
}

// Place implements Placer.
func (h Here) Place(ctx context.Context, a *action.Action, r Request) (Executor, func(), error) {
	if h.Slots == nil {
		return h.Executor, func() {}, nil
	}
	s, err := h.Slots.Acquire(ctx, slot.Request{
		Cores: a.Platform.Cores, MemoryBytes: a.Platform.MemoryBytes,
		Priority: r.Priority, Invocation: r.Meta.Invocation,
	})
	if err != nil {
		return nil, nil, err
	}
	return h.Executor, s.Release, nil
}
