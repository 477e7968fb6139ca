package share

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// How much a member may ask for that is not here.
const (
	MissBurst = 100_000
	MissRate  = 5_000 // a second
)

// maxMembers bounds how many members are remembered, of those with a budget and of those refused.
const maxMembers = 4096

// Guard decides who may ask how much. Make it with NewGuard.
type Guard struct {
	caller func(context.Context) (peer.ID, bool)
	out    *rate.Limiter // nil: no bound

	mu      sync.Mutex // guards misses and refused
	misses  map[peer.ID]*rate.Limiter
	refused map[peer.ID]struct{}
}

// NewGuard makes a guard. caller tells which member makes the call being served; false for none. bytes a
// second leave at most, 0 for no bound.
func NewGuard(caller func(context.Context) (peer.ID, bool), bytes int64) *Guard {
	g := &Guard{caller: caller, misses: map[peer.ID]*rate.Limiter{}, refused: map[peer.ID]struct{}{}}
	if bytes > 0 {
		g.out = rate.NewLimiter(rate.Limit(bytes), int(max(bytes, 8<<20)))
	}
	return g
}

// Admit gives the member that calls, unless it has asked for too much that is not here. Errors are gRPC statuses.
func (g *Guard) Admit(ctx context.Context) (peer.ID, error) {
	id, known := g.caller(ctx)
	if !known {
		return peer.ID{}, status.Error(codes.Unauthenticated, "only members of the mesh are served")
	}
	if budget := g.budget(id); budget.Tokens() < 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.refused) < maxMembers {
			g.refused[id] = struct{}{}
		}
		return id, status.Error(codes.ResourceExhausted, "too many questions for what is not here")
	}
	return id, nil
}

// Refused are the members that were not answered because they asked for too much that is not here, since the start:
// at most 4096, the first ones.
func (g *Guard) Refused() []peer.ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.refused))
}

// Missed notes that a member asked for n things that are not here.
func (g *Guard) Missed(id peer.ID, n int) {
	budget := g.budget(id)
	for n > 0 { // a reservation may not be larger than the burst
		part := min(n, MissBurst)
		n -= part
		budget.ReserveN(time.Now(), part)
	}
}

// budget is what a member may still ask for that is not here.
func (g *Guard) budget(id peer.ID) *rate.Limiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.misses[id] == nil {
		if len(g.misses) >= maxMembers {
			clear(g.misses)
		}
		g.misses[id] = rate.NewLimiter(MissRate, MissBurst)
	}
	return g.misses[id]
}

// send waits until n more bytes may leave.
func (g *Guard) send(ctx context.Context, n int) error {
	if g.out == nil || n == 0 {
		return nil
	}
	return g.out.WaitN(ctx, min(n, g.out.Burst()))
}
