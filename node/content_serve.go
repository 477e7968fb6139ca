package node

import (
	"context"

	"google.golang.org/grpc"

	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// contentServer answers members with what the present company knows: the gRPC server outlives a move to another mesh, what
// it serves does not.
type contentServer struct {
	contentv1.UnimplementedContentServer // calls of later versions
	content                              *content
}

func (s contentServer) now() contentv1.ContentServer { return s.content.company.Load().served }

// Summary implements contentv1.ContentServer.
func (s contentServer) Summary(q *contentv1.SummaryRequest, to grpc.ServerStreamingServer[contentv1.SummaryPart]) error {
	return s.now().Summary(q, to)
}

// Results implements contentv1.ContentServer.
func (s contentServer) Results(ctx context.Context, q *contentv1.ResultsRequest) (*contentv1.ResultsResponse, error) {
	return s.now().Results(ctx, q)
}

// Announce implements contentv1.ContentServer.
func (s contentServer) Announce(ctx context.Context, q *contentv1.AnnounceRequest) (*contentv1.AnnounceResponse, error) {
	return s.now().Announce(ctx, q)
}

// Forget implements contentv1.ContentServer.
func (s contentServer) Forget(ctx context.Context, q *contentv1.ForgetRequest) (*contentv1.ForgetResponse, error) {
	return s.now().Forget(ctx, q)
}

// Find implements contentv1.ContentServer.
func (s contentServer) Find(ctx context.Context, q *contentv1.FindRequest) (*contentv1.FindResponse, error) {
	return s.now().Find(ctx, q)
}

// Reconcile implements contentv1.ContentServer.
func (s contentServer) Reconcile(ctx context.Context, q *contentv1.ReconcileRequest) (*contentv1.ReconcileResponse, error) {
	return s.now().Reconcile(ctx, q)
}

// Keep implements contentv1.ContentServer.
func (s contentServer) Keep(ctx context.Context, q *contentv1.KeepRequest) (*contentv1.KeepResponse, error) {
	return s.now().Keep(ctx, q)
}
