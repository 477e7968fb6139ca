package main

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/share"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// blobs is the service of blobs, as the role spoils it.
type blobs struct {
	*share.Blobs
	bspb.UnimplementedByteStreamServer
	rogue *rogue
}

func (b *blobs) register(to grpc.ServiceRegistrar) {
	repb.RegisterContentAddressableStorageServer(to, b)
	bspb.RegisterByteStreamServer(to.(*grpc.Server), b) // generated before there were registrars
}

// FindMissingBlobs implements ContentAddressableStorage.
func (b *blobs) FindMissingBlobs(ctx context.Context, q *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	if b.rogue.role.hoards {
		return &repb.FindMissingBlobsResponse{}, nil
	}
	return b.Blobs.FindMissingBlobs(ctx, q)
}

// BatchReadBlobs implements ContentAddressableStorage.
func (b *blobs) BatchReadBlobs(ctx context.Context, q *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	answer, err := b.Blobs.BatchReadBlobs(ctx, q)
	if err == nil && b.rogue.role.batch != nil {
		b.rogue.role.batch(ctx, answer)
	}
	return answer, err
}

// Read implements ByteStream.
func (b *blobs) Read(q *bspb.ReadRequest, stream bspb.ByteStream_ReadServer) error {
	if b.rogue.role.stream == nil {
		return b.Blobs.Read(q, stream)
	}
	return b.Blobs.Read(q, spoiled{stream, b.rogue.role.stream})
}

// spoiled is a stream into which the role puts something else.
type spoiled struct {
	grpc.ServerStreamingServer[bspb.ReadResponse]
	send func(stream grpc.ServerStreamingServer[bspb.ReadResponse], data []byte) error
}

// Send implements grpc.ServerStreamingServer.
func (s spoiled) Send(r *bspb.ReadResponse) error { return s.send(s.ServerStreamingServer, r.Data) }

// results are those that this member's node had a receipt of, all of them complete, as it says.
type results struct{ rogue *rogue }

// Answers implements share.Results.
func (r results) Answers(_ context.Context, keys []cid.Key) ([]share.Answer, error) {
	raw, err := r.rogue.receipts.Raw(keys)
	if err != nil {
		return nil, err
	}
	answers := make([]share.Answer, len(keys))
	for i := range raw {
		answers[i] = share.Answer{Receipts: raw[i], Complete: len(raw[i]) > 0}
	}
	return answers, nil
}

// content is the service of summaries and results, as the role spoils it.
type content struct {
	*share.Content
	rogue *rogue
}

// Results implements contentv1.ContentServer.
func (c *content) Results(ctx context.Context, q *contentv1.ResultsRequest) (*contentv1.ResultsResponse, error) {
	answer, err := c.Content.Results(ctx, q)
	if err != nil || c.rogue.role.answer == nil {
		return answer, err
	}
	for i, a := range answer.Answers {
		if len(a.Receipts) == 0 {
			continue
		}
		if err := c.rogue.role.answer(c.rogue, cid.Key(q.Keys[i]), a); err != nil {
			return nil, err
		}
	}
	return answer, nil
}
