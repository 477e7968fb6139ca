package lease

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// Register adds the service to what peers may call.
func (e *Executor) Register(to grpc.ServiceRegistrar) { leasev1.RegisterLeaseServer(to, e) }

// refused gives an error of this package its gRPC status.
func refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrStale):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, errMalformed):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, errClosed):
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}

// Reserve implements leasev1.LeaseServer.
func (e *Executor) Reserve(ctx context.Context, in *leasev1.ReserveRequest) (*leasev1.ReserveResponse, error) {
	caller, err := e.options.Caller(ctx)
	if err != nil {
		return nil, err
	}
	r, err := requestFrom(in, caller)
	if err != nil {
		return nil, refused(err)
	}
	id, joined, refusal := e.reserve(r)
	return answerProto(id, joined, refusal), nil
}

func (e *Executor) reserve(r Request) (id ID, joined bool, refusal *Refusal) {
	e.with(func(b *Book, now time.Time) { id, joined, refusal = b.Reserve(now, r) })
	return id, joined, refusal
}

// Cancel implements leasev1.LeaseServer.
func (e *Executor) Cancel(ctx context.Context, in *leasev1.CancelRequest) (*leasev1.CancelResponse, error) {
	caller, err := e.options.Caller(ctx)
	if err != nil {
		return nil, err
	}
	c, err := claimFrom(in.Claim, caller)
	if err != nil {
		return nil, refused(err)
	}
	e.with(func(b *Book, now time.Time) { b.Cancel(now, c) })
	return &leasev1.CancelResponse{}, nil
}

// Wait implements leasev1.LeaseServer: tickets come in, offers go out, until the call ends.
func (e *Executor) Wait(stream grpc.BidiStreamingServer[leasev1.WaitRequest, leasev1.WaitResponse]) error {
	caller, err := e.options.Caller(stream.Context())
	if err != nil {
		return err
	}
	out := make(chan *leasev1.WaitResponse, 2*maxTickets) // one offer a ticket, one answer a take
	push := func(m *leasev1.WaitResponse) {
		select {
		case out <- m:
		default: // a caller that does not read loses its offers; they lapse
		}
	}
	w := &waiter{push: func(o *Offered) { push(offerProto(o)) }}
	e.enter(caller, w)
	defer e.leave(caller, w)
	received := make(chan error, 1)
	go func() { // ends with the stream
		for {
			in, err := stream.Recv()
			if err == nil {
				err = e.hear(caller, in, push)
			}
			if err != nil {
				received <- err
				return
			}
		}
	}()
	for {
		select {
		case m := <-out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case err := <-received:
			return refused(err)
		}
	}
}

func offerProto(o *Offered) *leasev1.WaitResponse {
	return &leasev1.WaitResponse{Message: &leasev1.WaitResponse_Offer{Offer: &leasev1.Offer{
		Offer: o.Offer, Invocation: o.Invocation, Cores: o.Cores, FreeMemoryBytes: o.FreeBytes, TtlMilliseconds: OfferTTL.Milliseconds(),
	}}}
}

// enter makes w the place for a caller's offers; an earlier one of the same caller is no longer used.
func (e *Executor) enter(caller peer.ID, w *waiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiters[caller] = w
}

// leave ends the tickets of a caller whose call ended, unless another took its place.
func (e *Executor) leave(caller peer.ID, w *waiter) {
	e.with(func(b *Book, now time.Time) {
		if e.waiters[caller] == w {
			delete(e.waiters, caller)
			b.Leave(now, caller)
		}
	})
}

// hear handles one message of a caller that waits.
func (e *Executor) hear(caller peer.ID, in *leasev1.WaitRequest, push func(*leasev1.WaitResponse)) error {
	switch m := in.Message.(type) {
	case *leasev1.WaitRequest_Ticket:
		t := Ticket{Caller: caller, Invocation: m.Ticket.GetInvocation(), Cores: m.Ticket.GetCores(), MemoryBytes: m.Ticket.GetMemoryBytes()}
		e.with(func(b *Book, now time.Time) { b.Ticket(now, t) })
	case *leasev1.WaitRequest_Take:
		r, err := requestFrom(m.Take.GetReserve(), caller)
		if err != nil {
			return err
		}
		id, joined, refusal := e.take(m.Take.Offer, r)
		push(&leasev1.WaitResponse{Message: &leasev1.WaitResponse_Taken{Taken: &leasev1.Taken{
			Offer: m.Take.Offer, Answer: answerProto(id, joined, refusal),
		}}})
	case *leasev1.WaitRequest_Pass:
		e.pass(caller, m.Pass.GetOffer())
	}
	return nil
}

func (e *Executor) take(offer uint64, r Request) (id ID, joined bool, refusal *Refusal) {
	e.with(func(b *Book, now time.Time) { id, joined, refusal = b.Take(now, offer, r) })
	return id, joined, refusal
}

func (e *Executor) pass(caller peer.ID, offer uint64) {
	e.with(func(b *Book, now time.Time) { b.Pass(now, caller, offer) })
}

// Run implements leasev1.LeaseServer.
func (e *Executor) Run(stream grpc.BidiStreamingServer[leasev1.RunRequest, leasev1.RunResponse]) error {
	caller, err := e.options.Caller(stream.Context())
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	c, err := claimFrom(start.GetClaim(), caller)
	if err != nil {
		return refused(err)
	}
	g, err := e.begin(c, start)
	if err != nil {
		return refused(err)
	}
	heard := make(chan error, 1)
	go func() { heard <- e.listen(stream, c) }() // ends with the stream
	return refused(e.report(stream, g, heard))
}

// listen takes the beats of an initiator until it acknowledges or its call breaks.
func (e *Executor) listen(stream grpc.BidiStreamingServer[leasev1.RunRequest, leasev1.RunResponse], c Claim) error {
	for {
		in, err := stream.Recv()
		if err != nil {
			e.with(func(b *Book, now time.Time) { b.Broke(now, c) })
			return err // the lease lives on until it is too late for another call
		}
		switch in.Message.(type) {
		case *leasev1.RunRequest_Ack:
			e.with(func(b *Book, now time.Time) { err = b.Ack(now, c) })
			return err
		case *leasev1.RunRequest_Beat:
			e.with(func(b *Book, now time.Time) { err = b.Beat(now, c) })
			if err != nil {
				return err
			}
		}
	}
}

// report sends progress, and the result when there is one.
func (e *Executor) report(stream grpc.BidiStreamingServer[leasev1.RunRequest, leasev1.RunResponse], g *guest, heard <-chan error) error {
	beat := time.NewTicker(BeatEvery)
	defer beat.Stop()
	done, warned := g.done, g.warned
	for {
		var m *leasev1.RunResponse
		select {
		case err := <-heard:
			return err
		case <-done:
			done = nil
			m = &leasev1.RunResponse{Message: &leasev1.RunResponse_Result{Result: g.result}}
		case <-warned:
			warned = nil
			_, _, grace := g.progress()
			m = &leasev1.RunResponse{Message: &leasev1.RunResponse_Evict{Evict: &leasev1.Evict{GraceMilliseconds: grace.Milliseconds()}}}
		case <-beat.C:
			stage, metadata, _ := g.progress()
			cores, bytes := e.Free()
			m = &leasev1.RunResponse{Message: &leasev1.RunResponse_Progress{Progress: &leasev1.Progress{
				Stage: stage, Metadata: metadata, FreeCores: cores, FreeMemoryBytes: bytes,
			}}}
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}
