package reapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// SpliceBlob makes a blob from chunks that are present. It verifies the whole; a blob that is
// present already is accepted as it is.
func (s *contentService) SpliceBlob(ctx context.Context, q *repb.SpliceBlobRequest) (*repb.SpliceBlobResponse, error) {
	m, err := s.newMapping(q.InstanceName, q.DigestFunction, q.BlobDigest)
	if err != nil {
		return nil, err
	}
	if err := m.add(q.ChunkDigests); err != nil {
		return nil, err
	}
	if err := s.splice(ctx, m); err != nil {
		return nil, err
	}
	return &repb.SpliceBlobResponse{BlobDigest: m.blob.Proto()}, nil
}

// RegisterChunkMapping is SpliceBlob with the chunks in any number of messages.
func (s *contentService) RegisterChunkMapping(stream grpc.ClientStreamingServer[repb.RegisterChunkMappingRequest, repb.RegisterChunkMappingResponse]) error {
	var m *mapping
	for {
		q, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if m == nil {
			if m, err = s.newMapping(q.InstanceName, q.DigestFunction, q.BlobDigest); err != nil {
				return err
			}
		}
		if err := m.add(q.ChunkDigests); err != nil {
			return err
		}
	}
	if m == nil {
		return invalid("blob_digest", "stream has no messages")
	}
	if err := s.splice(stream.Context(), m); err != nil {
		return err
	}
	return stream.SendAndClose(&repb.RegisterChunkMappingResponse{BlobDigest: m.blob.Proto()})
}

// mapping is a blob as a sequence of chunks.
type mapping struct {
	blobs  Blobs // of its instance
	blob   digest.Digest
	chunks []digest.Digest
	size   int64 // of the chunks together
	limit  int   // of chunks
}

// newMapping validates the fields that both calls have.
func (s *contentService) newMapping(instance string, fv repb.DigestFunction_Value, p *repb.Digest) (*mapping, error) {
	if err := CheckInstance(instance); err != nil {
		return nil, err
	}
	fn, err := function(fv)
	if err != nil {
		return nil, err
	}
	blob, err := digestField("blob_digest", fn, p)
	if err != nil {
		return nil, err
	}
	if s.limits.MaxBlob > 0 && blob.Size() > s.limits.MaxBlob {
		return nil, invalid("blob_digest", "blob of %d bytes is larger than %d", blob.Size(), s.limits.MaxBlob)
	}
	return &mapping{blobs: s.within(instance), blob: blob, limit: s.limits.MaxChunks}, nil
}

// add appends chunks, which must not become more than the blob.
func (m *mapping) add(chunks []*repb.Digest) error {
	for _, p := range chunks {
		if len(m.chunks) == m.limit {
			return invalid("chunk_digests", "more than %d", m.limit)
		}
		d, err := digestField(indexed("chunk_digests", len(m.chunks)), m.blob.Function(), p)
		if err != nil {
			return err
		}
		if d.Size() > m.blob.Size()-m.size {
			return invalid("chunk_digests", "have more than the blob's %d bytes", m.blob.Size())
		}
		m.size += d.Size()
		m.chunks = append(m.chunks, d)
	}
	return nil
}

// splice makes m's blob present.
func (s *contentService) splice(ctx context.Context, m *mapping) error {
	missing, err := m.blobs.Missing(ctx, append([]digest.Digest{m.blob}, m.chunks...))
	if err != nil {
		return err
	}
	if len(missing) == 0 || missing[0] != m.blob {
		return nil
	}
	if len(missing) > 1 {
		return fmt.Errorf("%d chunks, the first %s: %w", len(missing)-1, missing[1].Short(), cas.ErrNotFound)
	}
	if m.size != m.blob.Size() {
		return invalid("chunk_digests", "have %d bytes together, the blob has %d", m.size, m.blob.Size())
	}
	w, err := m.blobs.NewWriter(ctx, m.blob)
	if err != nil {
		return err
	}
	defer w.Abort()
	buffer := make([]byte, min(m.blob.Size(), 1<<20))
	for _, d := range m.chunks {
		if err := s.append(ctx, w, d, buffer); err != nil {
			return err
		}
	}
	return uploadError(w.Commit())
}

// append writes d's content to w by way of buffer.
func (s *contentService) append(ctx context.Context, w *cas.Writer, d digest.Digest, buffer []byte) error {
	r, err := s.blobs.NewReader(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	for p := (part{reader: r, end: d.Size()}); p.at < p.end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buffer[:min(int64(len(buffer)), p.end-p.at)]
		if err := p.read(b); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
