package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/node/power"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// lending is the part of a node that decides how much of the machine others get.
type lending struct {
	governor *power.Governor
	guests   atomic.Int64                     // actions of others that run here now
	freeze   atomic.Pointer[func(bool) error] // stops and continues them; nil: nothing can run
	used     atomic.Pointer[power.Usage]      // what actions use; nil: not known
	leases   atomic.Pointer[leasing]          // what runs others' actions; nil: nothing
	frozen   bool                             // what freeze was told last; only Changed uses it, which is called one at a time
}

// openLending watches the machine from now on.
func (n *Node) openLending(context.Context) error {
	policy, err := n.lendPolicy()
	if err != nil {
		return err
	}
	readers, closeReaders := power.MachineReaders(n.actionUsage)
	n.onClose("readers of the machine", closeReaders)
	n.lending = &lending{}
	n.lending.governor, err = power.New(power.Options{
		Dir: n.config.Dir.State, Policy: policy, Readers: readers,
		Guests: func() int { return int(n.lending.guests.Load()) },
		Looked: n.lendingLooked, Changed: n.lendingChanged,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { n.lending.governor.Run(ctx) })
	n.onClose("lending", func() error {
		cancel()
		watching.Wait()
		return nil
	})
	return nil
}

// actionUsage is the processor time of all actions so far, where it is counted.
func (n *Node) actionUsage() (time.Duration, bool) {
	if n.lending == nil {
		return 0, false
	}
	if used := n.lending.used.Load(); used != nil {
		return (*used)()
	}
	return 0, false
}

// lendingLooked tells who admits guests how much memory there is. It is called while openLending runs, too.
func (n *Node) lendingLooked(f power.Facts) {
	if l := n.lending.leases.Load(); l != nil {
		l.executor.Memory(f.Available, int64(n.config.Lend.Reserve))
	}
}

// lendingChanged stops what runs for others, or lets it go on. It is called while openLending runs, too.
func (n *Node) lendingChanged(s power.Status) {
	n.log.Debug("lending changed", "state", s.String())
	if l := n.lending.leases.Load(); l != nil {
		l.lend(s)
	}
	freeze := n.lending.freeze.Load()
	if freeze == nil || s.Freeze == n.lending.frozen {
		return
	}
	n.lending.frozen = s.Freeze
	if err := (*freeze)(s.Freeze); err != nil { // they are evicted when the grace is over all the same
		n.log.Debug("actions of others cannot be made to stand still", "err", err)
	}
}

// lendPolicy is the configuration in the words of node/power.
func (n *Node) lendPolicy() (power.Policy, error) {
	c := n.config.Lend
	hours, err := power.ParseHours(c.Hours)
	if err != nil {
		return power.Policy{}, fmt.Errorf("lend.hours: %w", err)
	}
	machine, err := n.pretended()
	if err != nil {
		return power.Policy{}, err
	}
	policy := power.DefaultPolicy()
	policy.Cores = n.cores(machine)
	policy.Battery, policy.User, policy.Heat, policy.Metered = power.Wish(c.Battery), power.Wish(c.User), power.Wish(c.Heat), power.Wish(c.Metered)
	policy.CPU, policy.Reserve, policy.Hours, policy.Grace = float64(c.CPU)/100, int64(c.Reserve), hours, c.Grace
	return policy, nil
}

// lendingAnswers is the node as the command line asks it about lending.
type lendingAnswers struct {
	controlv1.UnimplementedLendingServer
	lending *lending
}

// Lending implements controlv1.LendingServer.
func (a lendingAnswers) Lending(context.Context, *controlv1.LendingRequest) (*controlv1.LendingResponse, error) {
	return a.lending.answer(), nil
}

// Pause implements controlv1.LendingServer.
func (a lendingAnswers) Pause(ctx context.Context, q *controlv1.PauseRequest) (*controlv1.LendingResponse, error) {
	until, err := power.ParseUntil(q.Until, time.Now())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := a.lending.governor.Pause(ctx, until, q.Now); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return a.lending.answer(), nil
}

// Resume implements controlv1.LendingServer.
func (a lendingAnswers) Resume(ctx context.Context, _ *controlv1.ResumeRequest) (*controlv1.LendingResponse, error) {
	if err := a.lending.governor.Resume(ctx); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return a.lending.answer(), nil
}

// answer is the present state as the control API tells it.
func (l *lending) answer() *controlv1.LendingResponse {
	s := l.governor.Status()
	r := &controlv1.LendingResponse{
		State: s.State.String(), Reason: s.Reason, Since: timestamppb.New(s.Since), Guests: l.guests.Load(),
	}
	if !s.Until.IsZero() {
		r.Until = timestamppb.New(s.Until)
	}
	_, faults := l.governor.Facts()
	for name, err := range faults {
		r.Unknown = append(r.Unknown, fmt.Sprintf("%s: %v", name, err))
	}
	slices.Sort(r.Unknown)
	return r
}
