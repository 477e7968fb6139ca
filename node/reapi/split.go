package reapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/chunk"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// mappingPage is how many chunk digests one GetChunkMappingResponse carries: well under 1 MiB.
const mappingPage = 4096

// SplitBlob cuts a blob into chunks of its content's making and stores them.
func (s *contentService) SplitBlob(ctx context.Context, q *repb.SplitBlobRequest) (*repb.SplitBlobResponse, error) {
	chunks, err := s.split(ctx, q)
	if err != nil {
		return nil, err
	}
	return &repb.SplitBlobResponse{ChunkDigests: digest.Protos(chunks), ChunkingFunction: repb.ChunkingFunction_FAST_CDC_2020}, nil
}

// GetChunkMapping is SplitBlob with the chunks in any number of messages.
func (s *contentService) GetChunkMapping(q *repb.GetChunkMappingRequest, stream grpc.ServerStreamingServer[repb.GetChunkMappingResponse]) error {
	chunks, err := s.split(stream.Context(), q)
	if err != nil {
		return err
	}
	r := &repb.GetChunkMappingResponse{ChunkingFunction: repb.ChunkingFunction_FAST_CDC_2020}
	for {
		n := min(len(chunks), mappingPage)
		r.ChunkDigests = digest.Protos(chunks[:n])
		if err := stream.Send(r); err != nil {
			return err
		}
		if chunks = chunks[n:]; len(chunks) == 0 {
			return nil
		}
		r = &repb.GetChunkMappingResponse{}
	}
}

// splitRequest is what both calls ask for. The chunking function a client prefers makes no
// difference: there is one.
type splitRequest interface {
	GetInstanceName() string
	GetBlobDigest() *repb.Digest
	GetDigestFunction() repb.DigestFunction_Value
}

// split stores the chunks of a blob and gives their digests in order.
func (s *contentService) split(ctx context.Context, q splitRequest) ([]digest.Digest, error) {
	if err := CheckInstance(q.GetInstanceName()); err != nil {
		return nil, err
	}
	fn, err := function(q.GetDigestFunction())
	if err != nil {
		return nil, err
	}
	blob, err := digestField("blob_digest", fn, q.GetBlobDigest())
	if err != nil {
		return nil, err
	}
	r, err := s.blobs.NewReader(ctx, blob)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return storeChunks(ctx, s.within(q.GetInstanceName()), fn, chunk.New(io.NewSectionReader(r, 0, r.Size()), chunk.Params{Average: s.limits.ChunkAverage}))
}

// storeChunks stores what c gives, a batch at a time.
func storeChunks(ctx context.Context, blobs Blobs, fn digest.Function, c *chunk.Chunker) ([]digest.Digest, error) {
	var all []digest.Digest
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := c.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("split blob: %w", err)
		}
		d := fn.Of(data)
		missing, err := blobs.Missing(ctx, []digest.Digest{d})
		if err != nil {
			return nil, err
		}
		if len(missing) > 0 {
			if errs := blobs.PutBatch(ctx, []cas.Blob{{Digest: d, Data: data}}); errs != nil {
				return nil, errs[0]
			}
		}
		all = append(all, d)
	}
}
