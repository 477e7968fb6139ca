package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// Patience with a peer.
const (
	callTimeout   = 5 * time.Second // of Reserve and Cancel
	fetchStall    = 2 * time.Minute // an executor may fetch inputs without a sign of progress
	runAllowance  = time.Minute     // on top of an action's own timeout
	resumeAfter   = 500 * time.Millisecond
	outputTimeout = 30 * time.Minute // for fetching what an action made
)

// remote is a peer.
type remote struct {
	initiator *Initiator
	peer      peer.ID
}

func (r *remote) client(ctx context.Context) (leasev1.LeaseClient, error) {
	if r.initiator.options.Network == nil {
		return nil, errors.New("no network")
	}
	conn, err := r.initiator.options.Network.Control(ctx, r.peer)
	if err != nil {
		return nil, err
	}
	return leasev1.NewLeaseClient(conn), nil
}

func (r *remote) reserve(ctx context.Context, want Request) (ID, *Refusal, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client, err := r.client(ctx)
	if err != nil {
		return ID{}, nil, err
	}
	answer, err := client.Reserve(ctx, requestProto(want))
	if err != nil {
		return ID{}, nil, err
	}
	return answerFrom(answer)
}

// ack is part of run: it goes over the call that brought the result.
func (r *remote) ack(Claim) {}

// cancel tells the peer, within the time a call may take, also when this node is ending.
func (r *remote) cancel(c Claim) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if client, err := r.client(ctx); err == nil {
		_, _ = client.Cancel(ctx, &leasev1.CancelRequest{Claim: claimProto(c)}) // else the missing beats end it
	}
}

// run runs an attempt at the peer. A call that breaks is taken up again until the beats are overdue.
func (r *remote) run(ctx context.Context, c Claim, t *attempt) (*flight.Outcome, error) {
	w := &watch{remote: r, attempt: t, claim: c, heard: time.Now(), stageSince: time.Now()}
	t.work.observer.Metadata(&repb.ExecutedActionMetadata{Worker: r.initiator.options.Name(r.peer)}) // the peer tells more with its beats
	for {
		outcome, err := w.call(ctx)
		var failed *failedError
		if !errors.As(err, &failed) && isBroken(err) && ctx.Err() == nil && time.Since(w.heard) < TTL {
			select {
			case <-time.After(resumeAfter):
				continue
			case <-ctx.Done():
			}
		}
		if isBroken(err) && failed == nil {
			err = lost(err)
		}
		return outcome, err
	}
}

// brokenError is a call that ended without a result.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

func isBroken(err error) bool {
	_, broken := errors.AsType[*brokenError](err)
	return broken
}

// watch follows one attempt at a peer, over one call or several. It belongs to one goroutine.
type watch struct {
	*remote
	attempt    *attempt
	claim      Claim
	heard      time.Time // the last message
	stage      leasev1.Stage
	stageSince time.Time
}

// call is one Run. Its errors: a *brokenError, a *failedError, ctx's, or with an outcome the action's own.
func (w *watch) call(ctx context.Context) (*flight.Outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client, err := w.client(ctx)
	if err != nil {
		return nil, &brokenError{err}
	}
	stream, err := client.Run(ctx)
	if err == nil {
		err = stream.Send(&leasev1.RunRequest{Message: &leasev1.RunRequest_Start{Start: w.start(ctx)}})
	}
	if err != nil {
		return nil, &brokenError{err}
	}
	messages := make(chan *leasev1.RunResponse)
	ended := make(chan error, 1)
	go func() { // ends with the call's context
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return w.follow(ctx, stream, messages, ended)
}

// start is the first message. What the executor wants first goes along.
func (w *watch) start(ctx context.Context) *leasev1.Start {
	a := w.attempt.work.action
	want := []digest.Digest{a.Digest, a.CommandDigest}
	if !a.InputRoot.IsEmpty() {
		want = append(want, a.InputRoot)
	}
	return &leasev1.Start{
		Claim: claimProto(w.claim), Action: DigestProto(a.Digest), WholeRoot: a.WholeRoot, MemoryBytes: w.attempt.Limit,
		Blobs: along(ctx, w.initiator.options.Blobs, want),
	}
}

// follow beats, and listens, until there is a result or no hope of one.
func (w *watch) follow(ctx context.Context, stream grpc.BidiStreamingClient[leasev1.RunRequest, leasev1.RunResponse], messages <-chan *leasev1.RunResponse, ended <-chan error) (*flight.Outcome, error) {
	beat := time.NewTicker(BeatEvery)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case err := <-ended:
			if c := status.Code(err); c == codes.FailedPrecondition || c == codes.InvalidArgument || c == codes.PermissionDenied {
				return nil, lost(err) // it knows nothing of the lease
			}
			return nil, &brokenError{err}
		case <-beat.C:
			if err := w.overdue(); err != nil {
				return nil, lost(err)
			}
			if err := stream.Send(&leasev1.RunRequest{Message: &leasev1.RunRequest_Beat{Beat: &leasev1.Beat{}}}); err != nil {
				return nil, &brokenError{err}
			}
		case m := <-messages:
			w.heard = time.Now()
			switch m := m.Message.(type) {
			case *leasev1.RunResponse_Progress:
				w.progress(m.Progress)
			case *leasev1.RunResponse_Evict:
				return nil, &failedError{why: place.Evicted, err: fmt.Errorf("its owner wants the machine back")}
			case *leasev1.RunResponse_Result:
				return w.take(ctx, stream, m.Result)
			}
		}
	}
}

// progress notes how far the executor says it is.
func (w *watch) progress(p *leasev1.Progress) {
	if p.GetStage() != w.stage {
		w.stage, w.stageSince = p.GetStage(), time.Now()
	}
	var m repb.ExecutedActionMetadata
	if len(p.GetMetadata()) > 0 && proto.Unmarshal(p.Metadata, &m) == nil {
		w.attempt.work.observer.Metadata(&m)
	}
}

// overdue says what the executor takes too long for: beats, inputs, or the action itself. One that beats for ever and never
// ends is found out here.
func (w *watch) overdue() error {
	limit := w.initiator.options.MaxTimeout
	if asked := w.attempt.work.action.Timeout; asked > 0 {
		limit = asked
	}
	since := time.Since(w.stageSince)
	switch {
	case time.Since(w.heard) > TTL:
		return fmt.Errorf("no sign of life for %s", TTL)
	case w.stage != leasev1.Stage_STAGE_RUNNING && since > fetchStall:
		return fmt.Errorf("it did not begin to run within %s", fetchStall)
	case w.stage == leasev1.Stage_STAGE_RUNNING && since > limit+runAllowance:
		return fmt.Errorf("it runs longer than the %s the action may take", limit)
	}
	return nil
}

// take makes a result safe here, while it goes on beating, and acknowledges it.
func (w *watch) take(ctx context.Context, stream grpc.BidiStreamingClient[leasev1.RunRequest, leasev1.RunResponse], r *leasev1.Result) (*flight.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, outputTimeout)
	defer cancel()
	type taken struct {
		outcome *flight.Outcome
		err     error
	}
	done := make(chan taken, 1)
	go func() { // ends with ctx at the latest
		outcome, err := w.fetch(ctx, r)
		done <- taken{outcome, err}
	}()
	beat := time.NewTicker(BeatEvery)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			_ = stream.Send(&leasev1.RunRequest{Message: &leasev1.RunRequest_Beat{Beat: &leasev1.Beat{}}}) // the outputs may come all the same
		case t := <-done:
			var failed *failedError
			if !errors.As(t.err, &failed) {
				_ = stream.Send(&leasev1.RunRequest{Message: &leasev1.RunRequest_Ack{Ack: &leasev1.Ack{}}}) // else the pins go with the lease
				_ = stream.CloseSend()
			}
			return t.outcome, t.err
		}
	}
}

// fetch checks a result, and fetches and verifies all it names. One that is not wanted any more comes without its outputs.
func (w *watch) fetch(ctx context.Context, r *leasev1.Result) (*flight.Outcome, error) {
	if r.GetFailure() == leasev1.Failure_FAILURE_MISSING {
		return nil, w.missing(ctx, r)
	}
	outcome, err := outcomeFrom(r)
	var failed *failedError
	if outcome == nil || errors.As(err, &failed) && failed.why != place.OutOfMemory {
		return nil, err
	}
	fetchErr := w.bring(ctx, r, outcome, err == nil)
	if fetchErr != nil && err == nil && errors.Is(context.Cause(ctx), errUnwanted) { // a copy was faster: it is but compared
		fetchErr = w.note(context.WithoutCancel(ctx), r, outcome)
	}
	if fetchErr != nil {
		return nil, lost(fetchErr)
	}
	return outcome, err
}

// bring has everything here that a result names. The receipt of a good one must be believed.
func (w *watch) bring(ctx context.Context, r *leasev1.Result, outcome *flight.Outcome, good bool) error {
	o, a := w.initiator.options, w.attempt.work.action
	if err := unpack(ctx, o.Blobs, r.Blobs); err != nil {
		return err
	}
	if err := o.Content.Outputs(ctx, w.peer, a.Digest.Function(), outcome.Result); err != nil {
		return fmt.Errorf("fetch outputs: %w", err)
	}
	if o.Receipts == nil || !good {
		return nil
	}
	if err := o.Receipts.Accept(ctx, w.peer, a, outcome.Result, r.Receipt); err != nil {
		return fmt.Errorf("accept result: %w", err)
	}
	outcome.Signed = true
	return nil
}

// note keeps the receipt of a result whose outputs are not wanted any more.
func (w *watch) note(ctx context.Context, r *leasev1.Result, outcome *flight.Outcome) error {
	receipts := w.initiator.options.Receipts
	if receipts == nil {
		return nil
	}
	return receipts.Note(ctx, w.peer, w.attempt.work.action, outcome.Result, r.Receipt)
}

// missing decides about inputs that the executor could not get: those that are not here either the client must upload; else
// it is the executor that could not fetch.
func (w *watch) missing(ctx context.Context, r *leasev1.Result) error {
	var ds []digest.Digest
	for _, p := range r.Missing {
		if d, err := digestFrom(p); err == nil {
			ds = append(ds, d)
		}
	}
	absent, err := w.initiator.options.Blobs.Missing(ctx, ds)
	if err != nil {
		return lost(err)
	}
	if len(absent) == 0 {
		return lost(fmt.Errorf("it could not fetch %d inputs", len(ds)))
	}
	return &action.MissingError{Digests: absent}
}

// outcomeFrom reads a result of a peer. The error is a *failedError, or, with an outcome, the action's own.
func outcomeFrom(r *leasev1.Result) (*flight.Outcome, error) {
	var s spb.Status
	if err := proto.Unmarshal(r.GetStatus(), &s); err != nil {
		return nil, lost(fmt.Errorf("status: %w", errMalformed))
	}
	outcome := &flight.Outcome{Result: &repb.ActionResult{}, Message: r.GetMessage()}
	if err := proto.Unmarshal(r.GetActionResult(), outcome.Result); err != nil {
		return nil, lost(fmt.Errorf("action result: %w", errMalformed))
	}
	reason := status.ErrorProto(&s)
	if reason == nil {
		reason = errors.New("no reason given")
	}
	switch r.GetFailure() {
	case leasev1.Failure_FAILURE_UNSPECIFIED:
		if len(r.ActionResult) == 0 {
			return nil, lost(fmt.Errorf("empty action result: %w", errMalformed))
		}
		return outcome, nil
	case leasev1.Failure_FAILURE_MEMORY:
		return outcome, &failedError{place.OutOfMemory, reason, r.MemoryBytes}
	case leasev1.Failure_FAILURE_ACTION:
		return outcome, reason
	}
	return nil, lost(reason)
}
