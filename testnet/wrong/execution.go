package wrong

import (
	"context"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

const (
	keepAlive = 200 * time.Millisecond
	slots     = 8 // executions that run at a time
)

// stream is what Execute and WaitExecution send on.
type stream interface {
	Send(*longrunningpb.Operation) error
	Context() context.Context
}

// Execute begins an execution, or joins one in flight, and follows it.
func (s *Server) Execute(req *repb.ExecuteRequest, stream repb.Execution_ExecuteServer) error {
	if err := s.checkInstance(req.InstanceName); err != nil {
		return err
	}
	if req.ExecutionPolicy.GetPriority() != 0 && s.has(PriorityRefused) {
		return status.Error(codes.InvalidArgument, "priority")
	}
	d, err := s.digest(req.DigestFunction, req.ActionDigest)
	if err != nil {
		return err
	}
	if s.broken(d) {
		return s.missing(d, []digest.Digest{d})
	}
	a, err := s.load(d)
	if err != nil {
		return err
	}
	o := s.begin(stream.Context(), a, req.SkipCacheLookup && !s.has(SkipLookupIgnored))
	return s.follow(o, stream, true)
}

// broken applies MissingRemembered and CrashesAfterBomb.
func (s *Server) broken(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has(MissingRemembered) && s.spoiled[d] || s.crashed
}

// begin gives the operation of an action: finished when its result is cached, an older one when
// that is in flight and may be shared, else a new one.
func (s *Server) begin(ctx context.Context, a *action, skip bool) *operation {
	alone := a.message.DoNotCache && !s.has(DoNotCacheIgnored)
	if !skip && !alone {
		if r, found := s.result(a.digest); found {
			o := newOperation(a.digest, func() {})
			s.ops.add(o)
			o.finish(&repb.ExecuteResponse{Result: r, CachedResult: true})
			return o
		}
	}
	if o := s.inFlight(a.digest, skip, alone); o != nil {
		return o
	}
	running, cancel := context.WithCancel(s.life)
	o := newOperation(a.digest, cancel)
	o.skip, o.alone, o.stdout = skip, alone, s.addLog("")
	s.ops.add(o)
	if s.has(BrokenStreamCancels) {
		context.AfterFunc(ctx, cancel)
	}
	s.running.Go(func() { // ends with the execution, at the latest when stop cancels life
		defer cancel()
		o.finish(s.run(running, o, a))
	})
	return o
}

// inFlight finds an operation to join.
func (s *Server) inFlight(d digest.Digest, skip, alone bool) *operation {
	if alone && !s.has(DoNotCacheMerged) || s.has(NeverMerged) {
		return nil
	}
	return s.ops.find(func(o *operation) bool {
		_, _, resp, _ := o.state()
		return o.action == d && resp == nil && (o.skip || !skip) && (!o.alone || s.has(DoNotCacheMerged))
	})
}

// follow sends the state of an operation now, at each change, and now and then, until it is done.
func (s *Server) follow(o *operation, to stream, first bool) error {
	ticker := time.NewTicker(keepAlive)
	defer ticker.Stop()
	sent := 0
	for {
		n, stage, resp, changed := o.state()
		late := s.has(FirstOperationLate) && first || s.has(WaitSaysNothingNow) && !first
		if n > sent && (!late || resp != nil) || sent == n && !s.has(NoKeepAlive) && !late {
			op, err := s.message(o, stage, resp)
			if err != nil {
				return status.Errorf(codes.Internal, "encode operation: %v", err)
			}
			ends := stage == repb.ExecutionStage_COMPLETED && !s.has(StreamStaysOpen)
			if err := to.Send(op); err != nil || ends || s.has(WaitStopsAtOnce) && !first {
				return err
			}
			sent = n
		}
		select {
		case <-changed:
		case <-ticker.C:
		case <-to.Context().Done():
			return to.Context().Err()
		}
	}
}

// WaitExecution follows an operation that was begun before.
func (s *Server) WaitExecution(req *repb.WaitExecutionRequest, stream repb.Execution_WaitExecutionServer) error {
	o := s.ops.named(req.Name)
	if o == nil {
		code := codes.NotFound
		if s.has(WaitUnknownIsInternal) {
			code = codes.Internal
		}
		return status.Errorf(code, "operation %q", req.Name)
	}
	return s.follow(o, stream, false)
}

// GetOperation gives the state of an operation.
func (s *Server) GetOperation(_ context.Context, req *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	o := s.ops.named(req.Name)
	if o == nil {
		if s.has(OperationUnknownIsEmpty) {
			return &longrunningpb.Operation{Name: req.Name}, nil
		}
		return nil, status.Errorf(codes.NotFound, "operation %q", req.Name)
	}
	_, stage, resp, _ := o.state()
	if s.has(OperationNeverDone) {
		stage = repb.ExecutionStage_EXECUTING
	}
	return s.message(o, stage, resp)
}

// ListOperations lists every operation, in one page.
func (s *Server) ListOperations(context.Context, *longrunningpb.ListOperationsRequest) (*longrunningpb.ListOperationsResponse, error) {
	resp := &longrunningpb.ListOperationsResponse{}
	if s.has(ListEmpty) {
		return resp, nil
	}
	for _, o := range s.ops.snapshot() {
		_, stage, response, _ := o.state()
		op, err := s.message(o, stage, response)
		if err != nil {
			return nil, status.Errorf(codes.Internal, "encode operation: %v", err)
		}
		resp.Operations = append(resp.Operations, op)
	}
	return resp, nil
}

// CancelOperation kills an execution and returns when it is dead.
func (s *Server) CancelOperation(ctx context.Context, req *longrunningpb.CancelOperationRequest) (*emptypb.Empty, error) {
	o := s.ops.named(req.Name)
	if o == nil && s.has(CancelUnknownNotFound) {
		return nil, status.Errorf(codes.NotFound, "operation %q", req.Name)
	}
	if o == nil {
		return nil, status.Errorf(codes.InvalidArgument, "operation %q", req.Name)
	}
	if s.has(CancelIgnored) {
		return &emptypb.Empty{}, nil
	}
	if s.has(CancelRewrites) {
		o.mu.Lock()
		o.response = &repb.ExecuteResponse{Status: status.New(codes.Canceled, "cancelled").Proto()}
		o.mu.Unlock()
	}
	o.cancel()
	for {
		_, _, resp, changed := o.state()
		if resp != nil {
			return &emptypb.Empty{}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// DeleteOperation forgets an operation.
func (s *Server) DeleteOperation(_ context.Context, req *longrunningpb.DeleteOperationRequest) (*emptypb.Empty, error) {
	o := s.ops.named(req.Name)
	if o == nil {
		return nil, status.Errorf(codes.NotFound, "operation %q", req.Name)
	}
	if !s.has(DeleteIgnored) {
		s.ops.remove(o)
	}
	return &emptypb.Empty{}, nil
}
