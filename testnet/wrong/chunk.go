package wrong

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/chunk"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// averageChunk is the advertised average size of a chunk, in bytes.
const averageChunk = 512 << 10

// cut finds chunk ends as FastCDC 2020 does.
func (s *Server) cut(data []byte) [][]byte {
	switch s.defect {
	case SplitFixedSize:
		return slices.Collect(slices.Chunk(data, averageChunk))
	case SplitOtherCuts:
		return gearCut(data)
	}
	var chunks [][]byte
	cutter := chunk.New(bytes.NewReader(data), chunk.Params{Average: averageChunk})
	for {
		c, err := cutter.Next()
		if err != nil {
			return chunks // the end of data: nothing else ends a bytes.Reader
		}
		chunks = append(chunks, bytes.Clone(c))
	}
}

// gearCut cuts by a plain Gear hash within the bounds of FastCDC: content-defined, and elsewhere.
func gearCut(data []byte) [][]byte {
	var gear [256]uint64
	for i := range gear {
		sum := md5.Sum([]byte{byte(i)})
		gear[i] = binary.BigEndian.Uint64(sum[:])
	}
	var chunks [][]byte
	for len(data) > 0 {
		end, hash := min(averageChunk/4, len(data)), uint64(0)
		for end < len(data) && end < 4*averageChunk {
			hash = hash<<1 + gear[data[end]]
			if end++; hash>>45 == 0 { // 19 bits: one position in 512 Ki
				break
			}
		}
		chunks = append(chunks, data[:end])
		data = data[end:]
	}
	return chunks
}

// split stores the chunks of a blob and gives their digests in order.
func (s *Server) split(v repb.DigestFunction_Value, p *repb.Digest) ([]*repb.Digest, error) {
	d, err := s.digest(v, p)
	if err != nil {
		return nil, err
	}
	data, found := s.get(d)
	if !found && !s.has(SplitAbsentIsEmpty) {
		return nil, status.Errorf(codes.NotFound, "blob %s", d)
	}
	chunks := s.cut(data)
	var ds []*repb.Digest
	for _, c := range chunks {
		if s.has(SplitChunksNotStored) {
			ds = append(ds, d.Function().Of(c).Proto())
			continue
		}
		ds = append(ds, s.putNew(d.Function(), c))
	}
	if s.has(SplitShuffled) {
		slices.Reverse(ds)
	}
	return ds, nil
}

// splice verifies and stores the concatenation of chunks.
func (s *Server) splice(v repb.DigestFunction_Value, p *repb.Digest, chunks []*repb.Digest) (*repb.Digest, error) {
	if s.has(OverstatedSplice) {
		return nil, status.Error(codes.Unimplemented, "splicing")
	}
	d, err := s.digest(v, p)
	if err != nil {
		return nil, err
	}
	var joined bytes.Buffer
	for _, c := range chunks {
		cd, err := digest.FromProto(d.Function(), c)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		data, found := s.get(cd)
		if !found {
			code := codes.NotFound
			if s.has(SpliceAbsentIsInternal) {
				code = codes.Internal
			}
			return nil, status.Errorf(code, "chunk %s", cd)
		}
		joined.Write(data)
	}
	if s.has(SpliceForgets) {
		return d.Proto(), nil
	}
	if s.has(SpliceUnverified) {
		s.put(d, joined.Bytes())
		return d.Proto(), nil
	}
	return d.Proto(), s.verify(d, joined.Bytes())
}

// SplitBlob is the unary form of versions up to 2.12.
func (s *Server) SplitBlob(_ context.Context, req *repb.SplitBlobRequest) (*repb.SplitBlobResponse, error) {
	ds, err := s.split(req.DigestFunction, req.BlobDigest)
	return &repb.SplitBlobResponse{ChunkDigests: ds, ChunkingFunction: repb.ChunkingFunction_FAST_CDC_2020}, err
}

// GetChunkMapping is the streamed form since 2.13.
func (s *Server) GetChunkMapping(req *repb.GetChunkMappingRequest, stream repb.ContentAddressableStorage_GetChunkMappingServer) error {
	ds, err := s.split(req.DigestFunction, req.BlobDigest)
	if err != nil {
		return err
	}
	return stream.Send(&repb.GetChunkMappingResponse{ChunkDigests: ds, ChunkingFunction: repb.ChunkingFunction_FAST_CDC_2020})
}

// SpliceBlob is the unary form of versions up to 2.12.
func (s *Server) SpliceBlob(_ context.Context, req *repb.SpliceBlobRequest) (*repb.SpliceBlobResponse, error) {
	d, err := s.splice(req.DigestFunction, req.BlobDigest, req.ChunkDigests)
	return &repb.SpliceBlobResponse{BlobDigest: d}, err
}

// RegisterChunkMapping is the streamed form since 2.13.
func (s *Server) RegisterChunkMapping(stream repb.ContentAddressableStorage_RegisterChunkMappingServer) error {
	var first *repb.RegisterChunkMappingRequest
	var chunks []*repb.Digest
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if first == nil {
			first = req
		}
		chunks = append(chunks, req.ChunkDigests...)
	}
	d, err := s.splice(first.GetDigestFunction(), first.GetBlobDigest(), chunks)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&repb.RegisterChunkMappingResponse{BlobDigest: d})
}
