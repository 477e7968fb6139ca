package execution

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// Options is what the services work with. Flights and Blobs must be set; zero values of the others stand
// for the defaults given.
type Options struct {
	Flights   *flight.Table
	Blobs     Blobs         // for what clients ask to have inlined
	KeepAlive time.Duration // longest silence on a stream; default 20 s
	MaxInline int64         // bytes of an ExecuteResponse with what is inlined in it; default 2 MiB

	// Note is told of each good result before the client that waits for it; ctx is that of the client's
	// call. Default: nobody is.
	Note func(ctx context.Context, action digest.Digest, r *repb.ActionResult)
}

// Register adds both services to a server.
func Register(to grpc.ServiceRegistrar, o Options) {
	if o.KeepAlive <= 0 {
		o.KeepAlive = 20 * time.Second
	}
	if o.MaxInline <= 0 {
		o.MaxInline = 2 << 20
	}
	if o.Note == nil {
		o.Note = func(context.Context, digest.Digest, *repb.ActionResult) {}
	}
	repb.RegisterExecutionServer(to, &Service{options: o})
	longrunningpb.RegisterOperationsServer(to, &Operations{flights: o.Flights})
}

// Service is the Execution service.
type Service struct {
	repb.UnimplementedExecutionServer
	options Options
}

// Execute starts a flight, or joins one, and streams its states.
func (s *Service) Execute(q *repb.ExecuteRequest, to grpc.ServerStreamingServer[longrunningpb.Operation]) error {
	ctx := to.Context()
	if err := reapi.CheckInstance(q.InstanceName); err != nil {
		return reapi.Status(err)
	}
	fn, err := digest.FunctionFromProto(q.DigestFunction)
	if err != nil {
		return reapi.Status(&reapi.FieldError{Field: "digest_function", Reason: err.Error()})
	}
	d, err := digest.FromProto(fn, q.ActionDigest)
	if err != nil {
		return reapi.Status(&reapi.FieldError{Field: "action_digest", Reason: err.Error()})
	}
	about := reapi.MetadataFrom(ctx)
	f, err := s.options.Flights.Execute(ctx, flight.Request{
		Action: d, Instance: q.InstanceName, SkipCacheLookup: q.SkipCacheLookup, Priority: q.ExecutionPolicy.GetPriority(),
		Meta: flight.Meta{
			Tool: about.Tool, Invocation: about.Invocation, ActionID: about.ActionID,
			Mnemonic: about.Mnemonic, Target: about.Target,
		},
	})
	if err != nil {
		return reapi.Status(err)
	}
	return s.stream(ctx, f, wish{stdout: q.InlineStdout, stderr: q.InlineStderr, files: q.InlineOutputFiles}, to)
}

// WaitExecution streams the states of a flight that exists, the present one at once.
func (s *Service) WaitExecution(q *repb.WaitExecutionRequest, to grpc.ServerStreamingServer[longrunningpb.Operation]) error {
	f, found := s.options.Flights.Find(q.Name)
	if !found {
		return reapi.Status(&unknownError{name: q.Name})
	}
	return s.stream(to.Context(), f, wish{}, to)
}

// stream sends the present state, then every change; a state that stays is repeated every KeepAlive, so
// that nobody on the way takes a long run for a dead connection.
func (s *Service) stream(ctx context.Context, f *flight.Flight, w wish, to grpc.ServerStreamingServer[longrunningpb.Operation]) error {
	for sent := uint64(0); ; {
		waiting, cancel := context.WithTimeout(ctx, s.options.KeepAlive)
		state, err := f.Wait(waiting, sent)
		cancel()
		if err != nil && ctx.Err() != nil {
			return reapi.Status(err) // the client left; otherwise it is time to repeat the state
		}
		if state.Done() {
			if r := state.Response; r.Status.GetCode() == 0 && r.Result != nil {
				s.options.Note(ctx, f.Action(), r.Result)
			}
			state.Response = s.inline(ctx, f.Action().Function(), w, state.Response)
		}
		op, err := operation(f, state)
		if err != nil {
			return reapi.Status(err)
		}
		if err := to.Send(op); err != nil {
			return err // gRPC's own
		}
		if state.Done() {
			return nil
		}
		sent = state.Version
	}
}

// operation writes a flight's state as the protocol has it.
func operation(f *flight.Flight, s flight.State) (*longrunningpb.Operation, error) {
	metadata, err := anypb.New(&repb.ExecuteOperationMetadata{
		Stage:                    s.Stage,
		ActionDigest:             f.Action().Proto(),
		StdoutStreamName:         s.StdoutStream,
		StderrStreamName:         s.StderrStream,
		PartialExecutionMetadata: s.Metadata,
		DigestFunction:           f.Action().Function().Proto(),
	})
	if err != nil {
		return nil, fmt.Errorf("write metadata of %s: %w", f.Name(), err)
	}
	op := &longrunningpb.Operation{Name: f.Name(), Metadata: metadata, Done: s.Done()}
	if s.Done() {
		response, err := anypb.New(s.Response)
		if err != nil {
			return nil, fmt.Errorf("write response of %s: %w", f.Name(), err)
		}
		op.Result = &longrunningpb.Operation_Response{Response: response}
	}
	return op, nil
}
