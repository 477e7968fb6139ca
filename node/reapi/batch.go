package reapi

import (
	"context"
	"errors"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// indexed names an element of a repeated field.
func indexed(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// update implements BatchUpdateBlobs: items succeed and fail independently.
func (s *contentService) update(ctx context.Context, r *updateRequest) (*batchResponse, error) {
	if err := CheckInstance(r.instance); err != nil {
		return nil, err
	}
	fn, err := function(r.function)
	if err != nil {
		return nil, err
	}
	if err := s.checkUpdateSize(r.items); err != nil {
		return nil, err
	}
	out := &batchResponse{items: make([]batchItem, len(r.items)), tagStatus: tagUpdateStatus}
	blobs, places := make([]cas.Blob, 0, len(r.items)), make([]int, 0, len(r.items))
	for i := range r.items {
		blob, err := s.blob(&r.items[i], fn)
		out.items[i].digest = blob.Digest
		if err != nil {
			out.items[i].status = itemStatus(err)
			if blob.Digest.IsZero() {
				out.items[i].raw = r.items[i].digest.proto()
			}
			continue
		}
		blobs, places = append(blobs, blob), append(places, i)
	}
	for i, err := range s.within(r.instance).PutBatch(ctx, blobs) {
		out.items[places[i]].status = itemStatus(uploadError(err))
	}
	return out, nil
}

// checkUpdateSize refuses a batch whose blobs are larger together than advertised, as they came or
// as they are uncompressed.
func (s *contentService) checkUpdateSize(items []updateItem) error {
	var total int64
	for i := range items {
		size := max(int64(len(items[i].data)), items[i].digest.size)
		if total += size; total > s.limits.MaxBatch || size > s.limits.MaxBatch {
			return invalid("requests", "blobs have more than %d bytes together", s.limits.MaxBatch)
		}
	}
	return nil
}

// blob validates item i and decompresses its data. With an error, the digest is zero when it is
// the digest that is malformed.
func (s *contentService) blob(i *updateItem, fn digest.Function) (cas.Blob, error) {
	d, err := i.digest.digest(fn)
	if err != nil {
		return cas.Blob{}, invalid("digest", "%v", err)
	}
	blob := cas.Blob{Digest: d, Data: i.data}
	c, err := compressorFromProto(i.compressor)
	if err != nil {
		return blob, invalid("compressor", "%v", err)
	}
	if c != Identity {
		if blob.Data, err = s.packer.decompress(c, i.data, d.Size()); err != nil {
			return blob, invalid("data", "%v", err)
		}
	}
	return blob, nil
}

// uploadError tells content that does not match its digest from content that rotted in the store.
func uploadError(err error) error {
	if errors.Is(err, cas.ErrCorrupt) {
		return invalid("data", "%v", err)
	}
	return err
}

// itemStatus is the status of one item of a batch; nil is OK.
func itemStatus(err error) *spb.Status {
	if err == nil {
		return nil
	}
	return status.Convert(Status(err)).Proto()
}

// read implements BatchReadBlobs: each item has its own status.
func (s *contentService) read(ctx context.Context, r *digestsRequest) (*batchResponse, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	var total int64
	for _, d := range r.digests {
		if total += d.Size(); total > s.limits.MaxBatch || d.Size() > s.limits.MaxBatch {
			return nil, invalid("digests", "blobs have more than %d bytes together", s.limits.MaxBatch)
		}
	}
	fill := filler{left: s.limits.maxResponse() - int64(len(r.digests))*emptyItem}
	if fill.left < 0 {
		return nil, invalid("digests", "%d are too many for one response", len(r.digests))
	}
	if accepts(r.compressors, Zstd) {
		fill.packer = s.packer
	}
	out := &batchResponse{items: make([]batchItem, len(r.digests)), tagStatus: tagReadStatus}
	valid, places := r.digests, []int(nil)
	if len(r.bad) > 0 {
		valid, places = out.refuse(r)
	}
	data, err := s.blobs.GetBatch(ctx, valid)
	if err != nil {
		return nil, err
	}
	for i, d := range valid {
		at := i
		if places != nil {
			at = places[i]
		}
		fill.fill(&out.items[at], d, data[i])
	}
	return out, nil
}

// refuse answers the malformed digests and gives the others with their places.
func (b *batchResponse) refuse(r *digestsRequest) (valid []digest.Digest, places []int) {
	for _, bad := range r.bad {
		item := &b.items[bad.index]
		item.raw, item.status = bad.wire, itemStatus(invalid(indexed("digests", bad.index), "%v", bad.err))
	}
	for i, d := range r.digests {
		if b.items[i].raw == nil {
			valid, places = append(valid, d), append(places, i)
		}
	}
	return valid, places
}

const (
	// emptyItem is the size of an item of a response without data: tag, length, digest, and a
	// status without a message.
	emptyItem = 2 + 2 + 2 + digest.HexSize + 1 + 4 + 2 + 2
	// dataOverhead is what data adds to an item beside itself: tag, two longer lengths, compressor.
	dataOverhead = 1 + 4 + 2 + 2
)

// filler puts blobs into a response as long as it is small enough for a client that receives
// messages of gRPC's default size. The others are RESOURCE_EXHAUSTED, to be asked for again.
type filler struct {
	left   int64
	packer *packer // nil when the client takes plain bytes only
}

// fill answers one item; nil data is a blob that is not there.
func (f *filler) fill(item *batchItem, d digest.Digest, data []byte) {
	item.digest = d
	if data == nil {
		item.status = &spb.Status{Code: int32(codes.NotFound)}
		return
	}
	item.data = data
	if f.packer != nil && len(data) >= minCompressed {
		if packed, err := f.packer.compress(data); err == nil && len(packed) < len(data) {
			item.data, item.compressor = packed, Zstd
		}
	}
	if need := int64(len(item.data)) + dataOverhead; need <= f.left {
		f.left -= need
		return
	}
	item.data, item.compressor = nil, Identity
	item.status = &spb.Status{Code: int32(codes.ResourceExhausted)}
}

// accepts reports whether c is among those a client takes.
func accepts(acceptable []repb.Compressor_Value, c Compressor) bool {
	for _, v := range acceptable {
		if v == c.Proto() {
			return true
		}
	}
	return false
}

// handleUpdate is the gRPC handler of BatchUpdateBlobs.
func handleUpdate(srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
	s := srv.(*contentService)
	r, ok := s.updates.Get().(*updateRequest)
	if !ok {
		r = &updateRequest{}
	}
	defer func() {
		r.release()
		s.updates.Put(r)
	}()
	if err := decode(r); err != nil {
		return nil, err
	}
	return around(ctx, r, &grpc.UnaryServerInfo{Server: srv, FullMethod: repb.ContentAddressableStorage_BatchUpdateBlobs_FullMethodName},
		func(ctx context.Context, _ any) (any, error) { return s.update(ctx, r) })
}

// handleRead is the gRPC handler of BatchReadBlobs.
func handleRead(srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
	s := srv.(*contentService)
	r := s.request(readFields)
	defer s.requests.Put(r)
	if err := decode(r); err != nil {
		return nil, err
	}
	return around(ctx, r, &grpc.UnaryServerInfo{Server: srv, FullMethod: repb.ContentAddressableStorage_BatchReadBlobs_FullMethodName},
		func(ctx context.Context, _ any) (any, error) { return s.read(ctx, r) })
}
