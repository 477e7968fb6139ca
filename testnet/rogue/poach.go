package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/lease"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
	"github.com/buildmesh/buildmesh/testnet/sample"
)

// What a poacher does to each other member.
const (
	inVain  = 4  // tickets it leaves, of which it takes no offer
	grabbed = 64 // slots it reserves at most, and uses none
)

// The attempt and the epoch of its own leases.
const (
	attempt int32  = 2
	epoch   uint64 = 2
)

// prey is what a poacher expects others to run.
var prey = sample.Sample{Name: "prey", Size: 100, Takes: 10 * time.Second}

// poach has itself granted what others run, in order to end it; shows claims that are forged and old; reserves all room
// that there is and leaves tickets, and uses neither. It tells how each member took that.
func poach(ctx context.Context, r *rogue) (said []string, err error) {
	for _, m := range r.others() {
		conn, err := r.links.Control(ctx, m.ID)
		if err != nil {
			return nil, err
		}
		p := poacher{leasev1.NewLeaseClient(conn)}
		line, err := p.visit(ctx)
		if err != nil {
			return nil, fmt.Errorf("poach at %s: %w", m.Name, err)
		}
		said = append(said, m.Name+": "+line)
	}
	return said, nil
}

// poacher is one at one member.
type poacher struct{ leases leasev1.LeaseClient }

// visit does everything there.
func (p poacher) visit(ctx context.Context) (line string, err error) {
	joined := 0
	for _, end := range []func(context.Context, *leasev1.Claim) error{p.acknowledge, p.cancel} {
		claim, together, err := p.reserve(ctx, prey.Digest())
		if err != nil {
			return "", err
		}
		if claim == nil {
			break
		}
		if together {
			joined++
		}
		if err := end(ctx, claim); err != nil {
			return "", err
		}
	}
	refused, shown, err := p.forge(ctx)
	if err != nil {
		return "", err
	}
	idle := 0
	for ; idle < grabbed; idle++ {
		claim, _, err := p.reserve(ctx, digest.SHA256.Of(fmt.Append(nil, "grabbed ", idle)))
		if err != nil {
			return "", err
		}
		if claim == nil {
			break
		}
	}
	return fmt.Sprintf("joined prey %d times, %d of %d false claims refused, %d slots granted for nothing", joined, refused, shown, idle), p.queue(ctx)
}

// reserve asks for a slot to run an action in. Without one the claim is nil.
func (p poacher) reserve(ctx context.Context, action digest.Digest) (claim *leasev1.Claim, joined bool, err error) {
	answer, err := p.leases.Reserve(ctx, &leasev1.ReserveRequest{Action: lease.DigestProto(action), Cores: 1, Attempt: attempt, Epoch: epoch})
	if err != nil || answer.GetGranted() == nil {
		return nil, false, err
	}
	return &leasev1.Claim{Lease: answer.GetGranted().Lease, Attempt: attempt, Epoch: epoch}, answer.GetGranted().Joined, nil
}

// acknowledge says that the result of prey is safe here, while it still runs.
func (p poacher) acknowledge(ctx context.Context, claim *leasev1.Claim) error {
	return p.run(ctx, claim, prey.Digest(), &leasev1.RunRequest{Message: &leasev1.RunRequest_Ack{Ack: &leasev1.Ack{}}})
}

// cancel ends a lease. Whether there was one is not told.
func (p poacher) cancel(ctx context.Context, claim *leasev1.Claim) error {
	_, err := p.leases.Cancel(ctx, &leasev1.CancelRequest{Claim: claim})
	return err
}

// run shows a claim to have an action run, says one thing more, and waits for the end of the call. Errors: a gRPC status.
func (p poacher) run(ctx context.Context, claim *leasev1.Claim, action digest.Digest, then *leasev1.RunRequest) error {
	stream, err := p.leases.Run(ctx)
	if err != nil {
		return err
	}
	start := &leasev1.RunRequest{Message: &leasev1.RunRequest_Start{Start: &leasev1.Start{Claim: claim, Action: lease.DigestProto(action)}}}
	for _, m := range []*leasev1.RunRequest{start, then} {
		if stream.Send(m) != nil {
			break // Recv says why
		}
	}
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// forge shows claims of no lease, of another attempt, epoch and action, and of a lease that is over; by each something is to be
// run, acknowledged and cancelled. It tells how many were refused.
func (p poacher) forge(ctx context.Context) (refused, shown int, err error) {
	action := digest.SHA256.Of([]byte("forged"))
	own, _, err := p.reserve(ctx, action)
	if err != nil {
		return 0, 0, err
	}
	unknown := lease.NewID()
	if own == nil { // there is no slot free: then all are of no lease
		own = &leasev1.Claim{Lease: unknown[:], Attempt: attempt, Epoch: epoch}
	}
	show := func(c *leasev1.Claim, action digest.Digest) {
		shown++
		err := p.run(ctx, c, action, &leasev1.RunRequest{Message: &leasev1.RunRequest_Ack{Ack: &leasev1.Ack{}}})
		if status.Code(err) == codes.FailedPrecondition && p.cancel(ctx, c) == nil {
			refused++
		}
	}
	show(&leasev1.Claim{Lease: unknown[:], Attempt: attempt, Epoch: epoch}, action)
	show(&leasev1.Claim{Lease: own.Lease, Attempt: attempt - 1, Epoch: epoch}, action)
	show(&leasev1.Claim{Lease: own.Lease, Attempt: attempt, Epoch: epoch - 1}, action)
	show(own, prey.Digest()) // and by cancelling it is over
	show(own, action)
	return refused, shown, nil
}

// queue leaves tickets and lets every offer lapse. The tickets last as long as ctx.
func (p poacher) queue(ctx context.Context) error {
	waiting, err := p.leases.Wait(ctx)
	if err != nil {
		return err
	}
	for i := range inVain {
		ticket := &leasev1.WaitRequest{Message: &leasev1.WaitRequest_Ticket{Ticket: &leasev1.Ticket{Invocation: fmt.Sprint(i), Cores: 1}}}
		if err := waiting.Send(ticket); err != nil {
			return err
		}
	}
	return nil
}
