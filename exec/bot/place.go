package bot

import (
	"context"
	"errors"
	"fmt"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/platform"
)

// PlacerOptions is what a Placer works with. All but the numbers must be set.
type PlacerOptions struct {
	Bots     *Bots
	Blobs    action.Blobs
	Here     flight.Placer                // this machine
	Suits    func(platform.Request) error // whether this machine fulfils a request
	Busy     func() bool                  // whether an action would have to wait for this machine
	Complete Completeness

	Attempts int           // with bots, before this machine or nobody runs the action: 3
	Patience time.Duration // for a bot, when this machine does not suit and none is free or in touch: 1 min
}

// Completeness reports what a result refers to and our store lacks, as an error.
type Completeness func(ctx context.Context, fn digest.Function, r *repb.ActionResult) error

// Placer decides between this machine and bots. It implements flight.Placer.
type Placer struct{ options PlacerOptions }

// NewPlacer makes a Placer.
func NewPlacer(o PlacerOptions) *Placer {
	if o.Attempts <= 0 {
		o.Attempts = 3
	}
	if o.Patience <= 0 {
		o.Patience = time.Minute
	}
	return &Placer{options: o}
}

// UnavailableError says that no bot brought a result back, and that this machine cannot run the action.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return "no bot ran the action: " + e.Err.Error() }

// Unwrap gives the reason.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Suits reports whether this machine or a bot in touch may have an action, with the same kind of error as
// this machine's.
func (p *Placer) Suits(r platform.Request) error {
	err := p.options.Suits(r)
	if err == nil || p.options.Bots.suits(r) {
		return nil
	}
	return err
}

// placed is what a Placer gave.
type placed struct {
	executor flight.Executor
	release  func()
	err      error
}

// Place implements flight.Placer.
func (p *Placer) Place(ctx context.Context, a *action.Action, r flight.Request) (flight.Executor, func(), error) {
	o := &p.options
	suits := o.Suits(a.Platform)
	if suits == nil && (!o.Busy() || !o.Bots.Fits(a)) {
		return o.Here.Place(ctx, a, r)
	}
	payload, err := p.payload(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	at := o.Bots.submit(a, payload, r.Priority)
	if suits == nil {
		return p.race(ctx, at, r)
	}
	patience := time.NewTimer(o.Patience)
	defer patience.Stop()
	for {
		select {
		case <-at.given:
			return p.lent(at, r)
		case <-at.ended:
			return nil, nil, &UnavailableError{at.err}
		case <-ctx.Done():
			at.withdraw()
			return nil, nil, context.Cause(ctx)
		case <-patience.C:
			if o.Bots.Fits(a) { // one is in touch, and busy
				patience.Reset(o.Patience)
				continue
			}
			at.withdraw()
			return nil, nil, &UnavailableError{fmt.Errorf("none that suits is in touch: %w", suits)}
		}
	}
}

// race lets an action wait for a slot here and for a bot at once.
func (p *Placer) race(ctx context.Context, at *attempt, r flight.Request) (flight.Executor, func(), error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	here := make(chan placed, 1)
	go func() {
		executor, release, err := p.options.Here.Place(waiting, at.work.action, r)
		here <- placed{executor, release, err}
	}()
	select {
	case got := <-here:
		at.withdraw()
		return got.executor, got.release, got.err
	case <-at.given:
	}
	cancel()
	if got := <-here; got.err == nil {
		got.release()
	}
	return p.lent(at, r)
}

// lent is the executor of an action that a bot has.
func (p *Placer) lent(at *attempt, r flight.Request) (flight.Executor, func(), error) {
	return &lent{placer: p, attempt: at, request: r}, func() {}, nil
}

// payload is the packed Action. Its inputs are looked up first: a bot could not tell which are missing.
func (p *Placer) payload(ctx context.Context, a *action.Action) (*anypb.Any, error) {
	data, err := p.options.Blobs.GetBatch(ctx, []digest.Digest{a.Digest})
	if err != nil {
		return nil, fmt.Errorf("read action for a bot: %w", err)
	}
	missing, err := action.MissingInputs(ctx, p.options.Blobs, a.InputRoot)
	if err != nil {
		return nil, err
	}
	if data[0] == nil {
		missing = append(missing, a.Digest)
	}
	commands, err := p.options.Blobs.Missing(ctx, []digest.Digest{a.CommandDigest})
	if err != nil {
		return nil, fmt.Errorf("read action for a bot: %w", err)
	}
	if missing = append(missing, commands...); len(missing) > 0 {
		return nil, &action.MissingError{Digests: missing}
	}
	return &anypb.Any{TypeUrl: actionType, Value: data[0]}, nil
}

// actionType is the type of a lease's payload.
const actionType = "type.googleapis.com/build.bazel.remote.execution.v2.Action"

// retryable reports whether another try, elsewhere, may end otherwise.
func retryable(err error) bool {
	var failure *FailureError
	return errors.Is(err, ErrLost) || errors.As(err, &failure) && failure.transient()
}
