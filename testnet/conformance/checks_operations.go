package conformance

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// operationsChecks hold of google.longrunning.Operations, which a server may leave out.
func operationsChecks() []Check {
	needs := []Feature{Execution, Operations}
	return []Check{
		{
			Claim: "GetOperation_gives_the_state", Needs: needs, Run: checkGetOperation, Source: "rpc Operations.GetOperation",
			Rule: "a running execution is not done; a finished one is done, with the response of its stream",
		},
		{
			Claim: "GetOperation_of_an_unknown_name_is_NOT_FOUND", Needs: needs, Run: checkGetUnknown, Source: "rpc Operations.GetOperation",
			Rule: "NOT_FOUND, as for WaitExecution",
		},
		{
			Claim: "ListOperations_lists_what_runs", Needs: needs, Level: Should, Run: checkListOperations, Source: "rpc Operations.ListOperations",
			Rule: "a running execution is in the list, over all pages",
		},
		{
			Claim: "CancelOperation_ends_the_execution", Needs: needs, Run: checkCancel, Source: "rpc Operations.CancelOperation; rpc Execute, CANCELLED",
			Rule: "its streams end soon with ExecuteResponse.status CANCELLED",
		},
		{
			Claim: "CancelOperation_leaves_nothing_behind", Needs: needs, Run: checkCancelAgain, Source: "rpc Operations.CancelOperation",
			Rule: "a cancelled action has no cached result and executes when asked again",
		},
		{
			Claim: "CancelOperation_frees_what_it_held", Needs: needs, Run: checkCancelMany, Source: "rpc Operations.CancelOperation",
			Rule: "after many cancelled executions that ignore signals, another one still runs at once",
		},
		{
			Claim: "CancelOperation_of_a_finished_one_changes_nothing", Needs: needs, Run: checkCancelFinished, Source: "rpc Operations.CancelOperation",
			Rule: "the response stays what it was",
		},
		{
			Claim: "CancelOperation_of_an_unknown_name_is_INVALID_ARGUMENT", Needs: needs, Level: Should, Run: checkCancelUnknown, Source: "BuildStream takes no other code",
			Rule: "INVALID_ARGUMENT",
		},
		{
			Claim: "DeleteOperation_forgets", Needs: needs, Level: Should, Run: checkDelete, Source: "rpc Operations.DeleteOperation; rpc WaitExecution",
			Rule: "a deleted operation is NOT_FOUND for GetOperation and WaitExecution",
		},
	}
}

func (s *Subject) operation(ctx context.Context, name string) (*longrunningpb.Operation, error) {
	return s.Operations.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: name})
}

func (s *Subject) cancel(ctx context.Context, name string) error {
	_, err := s.Operations.CancelOperation(ctx, &longrunningpb.CancelOperationRequest{Name: name})
	return err
}

func checkGetOperation(ctx context.Context, t T, s *Subject) {
	name, stream := s.begin(ctx, t, "sleep 1; echo x")
	if op, err := s.operation(ctx, name); err != nil || op.Done || op.Name != name {
		t.Errorf("GetOperation of a running execution: %v, %v, want it not done", op, err)
	}
	r := follow(t, stream)
	op, err := s.operation(ctx, name)
	if err != nil || !op.Done || op.GetResponse() == nil {
		t.Fatalf("GetOperation of a finished execution: %v, %v, want it done with its response", op, err)
	}
	if got := response(t, op); r.Response == nil || !proto.Equal(got.Result, r.Response.Result) {
		t.Errorf("GetOperation has result %v, the stream had %v", got.Result, r.Response.GetResult())
	}
}

func checkGetUnknown(ctx context.Context, t T, s *Subject) {
	_, err := s.operation(ctx, s.unknownOperation())
	wantCode(t, err, "GetOperation of an unknown name", codes.NotFound)
}

func checkListOperations(ctx context.Context, t T, s *Subject) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name, _ := s.begin(ctx, t, "sleep 3")
	req := &longrunningpb.ListOperationsRequest{PageSize: 100}
	for range 100 {
		list, err := s.Operations.ListOperations(ctx, req)
		if err != nil {
			t.Fatalf("ListOperations: %v", err)
		}
		for _, op := range list.Operations {
			if op.Name == name {
				return
			}
		}
		if req.PageToken = list.NextPageToken; req.PageToken == "" {
			break
		}
	}
	t.Errorf("ListOperations does not list %s, which is running", name)
}

// soonCancelled cancels a running execution and wants its stream to end with CANCELLED.
func (s *Subject) soonCancelled(ctx context.Context, t T, script string) {
	t.Helper()
	name, stream := s.begin(ctx, t, script)
	began := time.Now()
	if err := s.cancel(ctx, name); err != nil {
		t.Fatalf("CancelOperation: %v", err)
	}
	r := follow(t, stream)
	if r.Code() != codes.Canceled {
		t.Errorf("a cancelled execution ended with %s (%s), want ExecuteResponse.status Canceled", r.Code(), r.Why())
	}
	if took := time.Since(began); took > s.patience/4 {
		t.Errorf("a cancelled execution ended after %s", took)
	}
}

func checkCancel(ctx context.Context, t T, s *Subject) { s.soonCancelled(ctx, t, s.nap()) }

func checkCancelAgain(ctx context.Context, t T, s *Subject) {
	d := s.newAction(ctx, t, "sleep 2; echo whole")
	stream, err := s.Start(ctx, &repb.ExecuteRequest{ActionDigest: d})
	if err != nil {
		t.Fatalf("Execute: %v", err)
	}
	op, err := stream.Recv()
	if err != nil {
		t.Fatalf("Execute, first operation: %v", err)
	}
	if err := s.cancel(ctx, op.Name); err != nil {
		t.Fatalf("CancelOperation: %v", err)
	}
	_ = follow(t, stream)
	if _, absent := s.absent[Cache]; !absent {
		_, err := s.lookup(ctx, d)
		wantCode(t, err, "GetActionResult of a cancelled action", codes.NotFound)
	}
	if got := s.said(ctx, t, s.ExecuteDigest(ctx, t, &repb.ExecuteRequest{ActionDigest: d})); got != "whole" {
		t.Errorf("Execute after a cancelled execution printed %q", got)
	}
}

func checkCancelMany(ctx context.Context, t T, s *Subject) {
	for range 8 {
		s.soonCancelled(ctx, t, "trap '' TERM INT HUP; "+s.nap()+" & "+s.nap()+"; "+s.nap())
	}
	began := time.Now()
	if got := s.said(ctx, t, s.ExecuteShell(ctx, t, "echo free")); got != "free" {
		t.Errorf("an execution after cancelled ones printed %q", got)
	}
	if took := time.Since(began); took > s.patience/3 {
		t.Errorf("an execution after 8 cancelled ones took %s: what they held is not free", took)
	}
}

func checkCancelFinished(ctx context.Context, t T, s *Subject) {
	r := s.ExecuteShell(ctx, t, "echo x")
	s.Result(ctx, t, r, 0)
	name := r.Operations[0].Name
	if err := s.cancel(ctx, name); err != nil && status.Code(err) == codes.Internal {
		t.Errorf("CancelOperation of a finished execution: %v", err)
	}
	op, err := s.operation(ctx, name)
	if status.Code(err) == codes.NotFound {
		t.Skipf("the server forgets operations as soon as they are done")
	}
	if err != nil || !op.Done || response(t, op).GetStatus().GetCode() != 0 {
		t.Errorf("GetOperation after cancelling a finished execution: %v, %v", op, err)
	}
}

func checkCancelUnknown(ctx context.Context, t T, s *Subject) {
	wantCode(t, s.cancel(ctx, s.unknownOperation()), "CancelOperation of an unknown name", codes.InvalidArgument)
}

func checkDelete(ctx context.Context, t T, s *Subject) {
	r := s.ExecuteShell(ctx, t, "echo x")
	s.Result(ctx, t, r, 0)
	name := r.Operations[0].Name
	if _, err := s.Operations.DeleteOperation(ctx, &longrunningpb.DeleteOperationRequest{Name: name}); err != nil {
		t.Fatalf("DeleteOperation of a finished execution: %v", err)
	}
	_, err := s.operation(ctx, name)
	wantCode(t, err, "GetOperation of a deleted operation", codes.NotFound)
	stream, err := s.Execution.WaitExecution(ctx, &repb.WaitExecutionRequest{Name: name})
	if err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, err, fmt.Sprintf("WaitExecution of the deleted operation %s", name), codes.NotFound)
}
