package wrong

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// get looks a blob up. The empty blob is always there.
func (s *Server) get(d digest.Digest) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data, found := s.blobs[d]; found {
		return data, true
	}
	if s.has(WrongSizeAccepted) {
		for known, data := range s.blobs {
			if known.Hash() == d.Hash() {
				return data, true
			}
		}
	}
	return nil, d.IsEmpty() && !s.has(EmptyBlobMissing)
}

// put stores a blob that has been compared with its digest already.
func (s *Server) put(d digest.Digest, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = data
}

// putNew stores data under its own digest.
func (s *Server) putNew(fn digest.Function, data []byte) *repb.Digest {
	d := fn.Of(data)
	s.put(d, data)
	return d.Proto()
}

// drop forgets a blob; of FoundIsGone alone.
func (s *Server) drop(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
}

// FindMissingBlobs lists what is absent.
func (s *Server) FindMissingBlobs(_ context.Context, req *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	resp := &repb.FindMissingBlobsResponse{}
	seen := map[digest.Digest]bool{}
	for _, p := range req.BlobDigests {
		d, err := s.digest(req.DigestFunction, p)
		if err != nil {
			return nil, err
		}
		if s.has(FoundIsGone) {
			defer s.drop(d)
		}
		if _, found := s.get(d); found || seen[d] || s.has(UnfinishedVisible) && s.beingWritten(d) {
			continue
		}
		seen[d] = true
		resp.MissingBlobDigests = append(resp.MissingBlobDigests, p)
		if s.has(MissingListsOne) {
			break
		}
	}
	return resp, nil
}

// BatchUpdateBlobs stores blobs, each on its own.
func (s *Server) BatchUpdateBlobs(_ context.Context, req *repb.BatchUpdateBlobsRequest) (*repb.BatchUpdateBlobsResponse, error) {
	if _, err := digest.FunctionFromProto(req.DigestFunction); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	total := int64(0)
	for _, r := range req.Requests {
		total += int64(len(r.Data))
	}
	if total > batchLimit && !s.has(BatchLimitIgnored) {
		return nil, status.Errorf(codes.InvalidArgument, "batch of %d bytes, limit %d", total, batchLimit)
	}
	resp := &repb.BatchUpdateBlobsResponse{}
	for _, r := range req.Requests {
		if d, err := s.digest(req.DigestFunction, r.Digest); err == nil && s.has(BatchAnswersNewAlone) {
			if _, found := s.get(d); found {
				continue
			}
		}
		err := s.update(req.DigestFunction, r)
		if err != nil && s.has(BatchFailsTogether) {
			return nil, err
		}
		resp.Responses = append(resp.Responses, &repb.BatchUpdateBlobsResponse_Response{Digest: r.Digest, Status: status.Convert(err).Proto()})
	}
	return resp, nil
}

// update stores one item of a batch.
func (s *Server) update(v repb.DigestFunction_Value, r *repb.BatchUpdateBlobsRequest_Request) error {
	d, err := s.digest(v, r.Digest)
	if err != nil {
		return err
	}
	data := r.Data
	switch r.Compressor {
	case repb.Compressor_IDENTITY:
	case repb.Compressor_ZSTD:
		if s.has(ItemCompressorIgnored) {
			break
		}
		if data, err = s.decompress(data, d.Size()); err != nil {
			return err
		}
	default:
		if s.has(UnknownCompressorPlain) {
			break
		}
		return status.Errorf(codes.InvalidArgument, "compressor %s is not advertised", r.Compressor)
	}
	if s.has(UnverifiedBatch) || s.has(ItemCompressorIgnored) && r.Compressor == repb.Compressor_ZSTD {
		s.put(d, data)
		return nil
	}
	if s.has(DigestInferredByLength) && v == repb.DigestFunction_UNKNOWN && digest.BLAKE3.Of(data).Hash() == d.Hash() {
		s.putNew(digest.BLAKE3, data)
		return nil
	}
	return s.verify(d, data)
}

// verify compares data with d and stores it.
func (s *Server) verify(d digest.Digest, data []byte) error {
	if got := d.Function().Of(data); got != d {
		return status.Errorf(codes.InvalidArgument, "the data has digest %s, not %s", got, d)
	}
	s.put(d, data)
	return nil
}

// BatchReadBlobs gives blobs, each on its own.
func (s *Server) BatchReadBlobs(_ context.Context, req *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	total := int64(0)
	resp := &repb.BatchReadBlobsResponse{}
	for _, p := range req.Digests {
		item := &repb.BatchReadBlobsResponse_Response{Digest: p, Status: &spb.Status{}}
		resp.Responses = append(resp.Responses, item)
		d, err := s.digest(req.DigestFunction, p)
		if err != nil {
			return nil, err
		}
		if total += d.Size(); total > batchLimit && !s.has(BatchLimitIgnored) {
			return nil, status.Errorf(codes.InvalidArgument, "batch of %d bytes and more, limit %d", total, batchLimit)
		}
		data, found := s.get(d)
		if !found {
			if s.has(BatchReadFailsTogether) {
				return nil, status.Errorf(codes.NotFound, "blob %s", d)
			}
			item.Status = status.Newf(codes.NotFound, "blob %s", d).Proto()
		}
		if item.Data = data; s.has(UnaskedCompression) {
			item.Data, item.Compressor = compress(data), repb.Compressor_ZSTD
		}
	}
	return resp, nil
}
