package main

import (
	"context"
	"errors"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/node/reapi"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
	"github.com/buildmesh/buildmesh/testnet/sample"
)

// The most that facts may say of a machine.
const (
	absurdCores  = 1 << 16
	absurdMemory = 1 << 50
)

// lending is how a rogue has actions of others given to it. It keeps leases as every member does (exec/lease), but runs nothing.
type lending struct {
	cores  float64
	memory int64 // 0: as much as an honest member
	silent bool  // it grants leases and says nothing of them any more
	makes  func(context.Context, *rogue, *action.Action) (*repb.ActionResult, error)
	signs  func(*rogue, *action.Action, *repb.ActionResult) ([]byte, error)
}

// offers is what an honest member says of its machine, as this one says it.
func (l *lending) offers(honest facts.Facts) facts.Facts {
	honest.State = facts.Ready
	honest.Cores, honest.CoresFree = l.cores, l.cores
	if l.memory > 0 {
		honest.Memory = l.memory
	}
	honest.MemoryFree = honest.Memory
	return honest
}

// lend registers the service of leases.
func (r *rogue) lend(to grpc.ServiceRegistrar) {
	l := r.role.lends
	self := r.identity.ID()
	r.executor = lease.NewExecutor(lease.ExecutorOptions{
		Self: self, Book: lease.NewBook(l.cores, l.memory, lease.Options{Self: self, NewID: lease.NewID}),
		Run: pretender{r}, Blobs: r.store, Content: nothing{}, Receipts: signer{r},
		Match: func(platform.Request) error { return nil }, Caller: caller, Status: reapi.Status,
	})
	r.closing = append(r.closing, func() error { r.executor.Close(); return nil })
	if l.silent {
		leasev1.RegisterLeaseServer(to, mute{r.executor})
		return
	}
	r.executor.Register(to)
}

// caller tells who calls.
func caller(ctx context.Context) (peer.ID, error) {
	if id, known := transport.Caller(ctx); known {
		return id, nil
	}
	return peer.ID{}, status.Error(codes.Unauthenticated, "no member")
}

// mute serves leases and is silent once one is to be used.
type mute struct{ *lease.Executor }

// Run implements leasev1.LeaseServer.
func (mute) Run(stream grpc.BidiStreamingServer[leasev1.RunRequest, leasev1.RunResponse]) error {
	<-stream.Context().Done()
	return nil
}

// pretender brings what the role makes up.
type pretender struct{ rogue *rogue }

// Execute implements flight.Executor.
func (p pretender) Execute(ctx context.Context, a *action.Action, _ flight.Observer) (*flight.Outcome, error) {
	made, err := p.rogue.role.lends.makes(ctx, p.rogue, a)
	if err != nil {
		return nil, err
	}
	return &flight.Outcome{Result: made}, nil
}

// signer vouches as the role does, and for nobody else.
type signer struct{ rogue *rogue }

// Sign implements lease.Receipts.
func (s signer) Sign(_ context.Context, a *action.Action, made *repb.ActionResult) ([]byte, error) {
	return s.rogue.role.lends.signs(s.rogue, a, made)
}

// Accept implements lease.Receipts.
func (signer) Accept(context.Context, peer.ID, *action.Action, *repb.ActionResult, []byte) error {
	return errNothingRun
}

// Note implements lease.Receipts.
func (signer) Note(context.Context, peer.ID, *action.Action, *repb.ActionResult, []byte) error {
	return errNothingRun
}

// errNothingRun is what a rogue says of results of others: none was asked of them.
var errNothingRun = errors.New("it has nothing run by others")

// nothing is all the content that pretending takes: what a sample is made of comes along with its lease.
type nothing struct{}

// Fetch implements lease.Content.
func (nothing) Fetch(_ context.Context, _ peer.ID, ds []digest.Digest) error {
	return &action.MissingError{Digests: ds}
}

// Inputs implements lease.Content.
func (nothing) Inputs(context.Context, peer.ID, *action.Action) (int64, error) { return 0, nil }

// Outputs implements lease.Content.
func (nothing) Outputs(context.Context, peer.ID, digest.Function, *repb.ActionResult) error {
	return nil
}

// Pin implements lease.Content.
func (nothing) Pin(context.Context, digest.Function, *repb.ActionResult) (func(), error) {
	return func() {}, nil
}

// forEver has nothing to bring until it is let go.
func forEver(ctx context.Context, _ *rogue, _ *action.Action) (*repb.ActionResult, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// evict sends everything away that it was given.
func evict(ctx context.Context, r *rogue, a *action.Action) (*repb.ActionResult, error) {
	r.executor.Evict(0)
	return forEver(ctx, r, a)
}

// outdated brings the first result that it ever made, whatever it was asked for.
func outdated(_ context.Context, r *rogue, _ *action.Action) (*repb.ActionResult, error) {
	_, made, err := r.first()
	return made.Result, err
}

// signedLongAgo is the receipt of what outdated brings.
func signedLongAgo(r *rogue, _ *action.Action, _ *repb.ActionResult) ([]byte, error) {
	raw, _, err := r.first()
	return raw, err
}

// How long a braggart takes for a sample at least, and how long it says that it took: not so little that nobody would learn
// its speed from it.
const (
	inTruth   = 2 * time.Second
	pretended = 11 * time.Millisecond
)

// inNoTime makes what a sample makes, without running it.
func inNoTime(ctx context.Context, r *rogue, a *action.Action) (*repb.ActionResult, error) {
	s, output, err := sample.Of(a.Arguments)
	if err != nil {
		return nil, err
	}
	content := s.Content()
	d := digest.SHA256.Of(content)
	if err := r.store.Put(ctx, d, content); err != nil {
		return nil, err
	}
	began := time.Now()
	select {
	case <-time.After(max(inTruth, s.Takes)):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{{Path: output, Digest: d.Proto()}},
		ExecutionMetadata: &repb.ExecutedActionMetadata{
			Worker:                  r.seat.Certificate().Name,
			ExecutionStartTimestamp: timestamppb.New(began), ExecutionCompletedTimestamp: timestamppb.New(began.Add(pretended)),
		},
	}, nil
}

// signed vouches for a result as an honest member does.
func signed(r *rogue, a *action.Action, made *repb.ActionResult) ([]byte, error) {
	_, like, err := r.first()
	if err != nil {
		return nil, err
	}
	receipt, err := receipt.Sign(r.identity, receipt.Statement{Mesh: like.Mesh, Action: a.Digest, Root: like.Root, Result: made, Tier: like.Tier})
	if err != nil {
		return nil, err
	}
	return receipt.Raw(), nil
}
