package lease

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// Bounds of what goes along with a message instead of being fetched.
const (
	alongBlob  = 64 << 10
	alongTotal = 512 << 10
)

// execute runs an action for a peer: fetch what it needs, run it, pin what it made. It never panics.
func (e *Executor) execute(ctx context.Context, g *guest, d digest.Digest, caller peer.ID, start *leasev1.Start) (result *leasev1.Result) {
	defer func() {
		if v := recover(); v != nil {
			result = e.failure(&flight.PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	a, fetched, err := e.prepare(ctx, d, caller, start)
	if err != nil {
		return e.failure(err)
	}
	g.mu.Lock()
	g.stage = leasev1.Stage_STAGE_RUNNING
	g.mu.Unlock()
	outcome, err := e.options.Run.Execute(ctx, a, guestObserver{g})
	if err != nil && outcome == nil {
		return e.failure(err)
	}
	if outcome.Result == nil {
		return e.failure(errors.New("the executor brought no result back"))
	}
	result = &leasev1.Result{FetchedBytes: fetched, Message: outcome.Message}
	if err != nil {
		result = e.failure(err)
	}
	if err := e.pack(ctx, g, a, outcome.Result, result); err != nil {
		return e.failure(err)
	}
	return result
}

// prepare makes the action and its inputs present and checks whether it may run here.
func (e *Executor) prepare(ctx context.Context, d digest.Digest, caller peer.ID, start *leasev1.Start) (*action.Action, int64, error) {
	if err := e.unpack(ctx, start.Blobs); err != nil {
		return nil, 0, err
	}
	limits := e.options.Limits
	limits.WholeRoot = limits.WholeRoot || start.WholeRoot
	a, err := decode(ctx, from{e.options.Blobs, e.options.Content, caller}, d, limits)
	if err != nil {
		return nil, 0, err
	}
	if a.Platform.Local {
		return nil, 0, fmt.Errorf("action %s runs on the machine of its own client only: %w", d.Short(), errMalformed)
	}
	if err := e.options.Match(a.Platform); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errNotHere, err)
	}
	fetched, err := e.options.Content.Inputs(ctx, caller, a)
	if err != nil {
		return nil, fetched, err
	}
	return withMemory(a, start.MemoryBytes), fetched, nil
}

// from is the local blobs and a peer that has those that are not here.
type from struct {
	Blobs
	Content
	peer peer.ID
}

// decode is action.Decode of what is here or at a peer.
func decode(ctx context.Context, f from, d digest.Digest, limits action.Limits) (*action.Action, error) {
	a, err := action.Decode(ctx, f.Blobs, d, limits)
	for range 2 { // the Action names its Command: they may be fetched one after the other
		var missing *action.MissingError
		if !errors.As(err, &missing) {
			break
		}
		if err := f.Fetch(ctx, f.peer, missing.Digests); err != nil {
			return nil, err
		}
		a, err = action.Decode(ctx, f.Blobs, d, limits)
	}
	return a, err
}

// errNotHere marks what is no fault of the action: another executor may run it.
var errNotHere = errors.New("this machine does not fulfil the action's platform")

// withMemory gives an action another limit of memory.
func withMemory(a *action.Action, bytes int64) *action.Action {
	if bytes <= 0 {
		return a
	}
	changed := *a
	changed.Platform.MemoryBytes = bytes
	return &changed
}

// pack pins the outputs, signs the result and puts small outputs into the message.
func (e *Executor) pack(ctx context.Context, g *guest, a *action.Action, r *repb.ActionResult, into *leasev1.Result) error {
	fn := a.Digest.Function()
	release, err := e.options.Content.Pin(ctx, fn, r)
	if err != nil {
		return fmt.Errorf("pin outputs of %s: %w", a.Digest.Short(), err)
	}
	g.pinned(release)
	if e.options.Receipts != nil && into.Failure == 0 {
		if into.Receipt, err = e.options.Receipts.Sign(ctx, a, r); err != nil {
			return fmt.Errorf("sign result of %s: %w", a.Digest.Short(), err)
		}
	}
	if into.ActionResult, err = proto.Marshal(r); err != nil {
		return fmt.Errorf("encode result of %s: %w", a.Digest.Short(), err)
	}
	into.Blobs = along(ctx, e.options.Blobs, smallOutputs(fn, r))
	return nil
}

// smallOutputs are the outputs worth sending along.
func smallOutputs(fn digest.Function, r *repb.ActionResult) (ds []digest.Digest) {
	add := func(p *repb.Digest) {
		if d, err := digest.FromProto(fn, p); err == nil && !d.IsEmpty() && d.Size() <= alongBlob {
			ds = append(ds, d)
		}
	}
	add(r.StdoutDigest)
	add(r.StderrDigest)
	for _, f := range r.OutputFiles {
		add(f.Digest)
	}
	for _, d := range r.OutputDirectories {
		add(d.TreeDigest)
	}
	return ds
}

// along reads small blobs to send with a message, as many as fit.
func along(ctx context.Context, blobs Blobs, ds []digest.Digest) (all []*leasev1.Blob) {
	data, err := blobs.GetBatch(ctx, ds)
	if err != nil {
		return nil // they are fetched like all others
	}
	room := int64(alongTotal)
	for i, d := range ds {
		if data[i] != nil && d.Size() <= alongBlob && d.Size() <= room {
			room -= d.Size()
			all = append(all, &leasev1.Blob{Digest: DigestProto(d), Content: data[i]})
		}
	}
	return all
}

// unpack stores blobs that came with a message.
func (e *Executor) unpack(ctx context.Context, blobs []*leasev1.Blob) error {
	return unpack(ctx, e.options.Blobs, blobs)
}

func unpack(ctx context.Context, store Blobs, blobs []*leasev1.Blob) error {
	for _, b := range blobs {
		d, err := digestFrom(b.GetDigest())
		if err == nil {
			err = store.Put(ctx, d, b.Content)
		}
		if err != nil {
			return fmt.Errorf("store what came along: %w", err)
		}
	}
	return nil
}

// failure sorts an error: whose fault it is decides whether another executor is tried.
func (e *Executor) failure(err error) *leasev1.Result {
	r := &leasev1.Result{Failure: leasev1.Failure_FAILURE_EXECUTOR}
	var missing *action.MissingError
	var directories *tree.MissingError
	var unsupported *action.UnsupportedError
	var resource *run.ResourceError
	var timeout *run.TimeoutError
	s := status.Convert(e.options.Status(err))
	switch {
	case errors.As(err, &directories):
		missing = &action.MissingError{Digests: directories.Digests}
		fallthrough
	case errors.As(err, &missing):
		r.Failure = leasev1.Failure_FAILURE_MISSING
		for _, d := range missing.Digests {
			r.Missing = append(r.Missing, DigestProto(d))
		}
	case errors.As(err, &resource) && resource.Resource == run.Memory:
		r.Failure, r.MemoryBytes = leasev1.Failure_FAILURE_MEMORY, resource.Limit
	case errors.As(err, &timeout), errors.As(err, &resource) && resource.Resource != run.Disk:
		r.Failure = leasev1.Failure_FAILURE_ACTION
	case errors.Is(err, errNotHere), errors.Is(err, context.Canceled), errors.Is(err, sandbox.ErrNoSandbox), errors.As(err, &unsupported):
	case s.Code() == codes.InvalidArgument, s.Code() == codes.FailedPrecondition:
		r.Failure = leasev1.Failure_FAILURE_ACTION
	}
	r.Status, _ = proto.Marshal(s.Proto()) // a status is always encodable
	return r
}

// guestObserver takes a run's news to those who wait for it.
type guestObserver struct{ guest *guest }

// Output implements flight.Observer. The output of a guest comes back with its result.
func (guestObserver) Output(string, string) {}

// Metadata implements flight.Observer.
func (o guestObserver) Metadata(m *repb.ExecutedActionMetadata) {
	data, err := proto.Marshal(m)
	if err != nil {
		return
	}
	o.guest.mu.Lock()
	o.guest.metadata = data
	o.guest.mu.Unlock()
}
