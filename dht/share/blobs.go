package share

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Bounds of what is sent.
const (
	// BatchBytes is the most content of one batch.
	BatchBytes = 4 << 20
	// MaxTree is the most directories of one GetTree.
	MaxTree = 1 << 18
	// MaxTreeBytes is the most bytes of directories of one GetTree.
	MaxTreeBytes = 128 << 20

	maxDigests = 16384     // in one call
	chunk      = 256 << 10 // of a stream in one message
	treePage   = 256 << 10 // bytes of directories in one message, about
	treeBatch  = 1024      // directories read at once
)

// Store is the local store, to read from.
type Store interface {
	// Missing gives those of ds that are absent and extends the lifetime of the others.
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
	// GetBatch gives each blob's content, nil where it is not found.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	// NewReader opens a blob, which stays until the reader is closed.
	NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error)
}

// Blobs serves blobs to members.
type Blobs struct {
	repb.UnimplementedContentAddressableStorageServer // calls of later versions
	store                                             Store
	guard                                             *Guard
}

// NewBlobs makes the service.
func NewBlobs(store Store, guard *Guard, private *Private) *Blobs {
	return &Blobs{store: veil{store, private}, guard: guard}
}

// RegisterFind adds only the question what is missing, which moves no content, to the server for small calls.
func (s *Blobs) RegisterFind(to grpc.ServiceRegistrar) {
	find := repb.ContentAddressableStorage_ServiceDesc
	find.Methods = slices.DeleteFunc(slices.Clone(find.Methods), func(m grpc.MethodDesc) bool { return m.MethodName != "FindMissingBlobs" })
	find.Streams = nil
	to.RegisterService(&find, s)
}

// Register adds the service to the server for content.
func (s *Blobs) Register(to grpc.ServiceRegistrar) {
	repb.RegisterContentAddressableStorageServer(to, s)
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: "google.bytestream.ByteStream",
		HandlerType: (*reader)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Read", ServerStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
			var q bspb.ReadRequest
			if err := stream.RecvMsg(&q); err != nil {
				return err
			}
			return srv.(*Blobs).Read(&q, &grpc.GenericServerStream[bspb.ReadRequest, bspb.ReadResponse]{ServerStream: stream})
		}}},
		Metadata: "google/bytestream/bytestream.proto",
	}, s)
}

// reader is the part of ByteStream that is served: writing is no call here.
type reader interface {
	Read(*bspb.ReadRequest, grpc.ServerStreamingServer[bspb.ReadResponse]) error
}

// digests validates the digests of a call.
func digests(fv repb.DigestFunction_Value, all []*repb.Digest) ([]digest.Digest, error) {
	fn, err := digest.FunctionFromProto(fv)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if len(all) > maxDigests {
		return nil, status.Errorf(codes.InvalidArgument, "more than %d digests", maxDigests)
	}
	ds := make([]digest.Digest, len(all))
	for i, p := range all {
		if ds[i], err = digest.FromProto(fn, p); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	return ds, nil
}

// FindMissingBlobs implements ContentAddressableStorage.
func (s *Blobs) FindMissingBlobs(ctx context.Context, q *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	id, err := s.guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	ds, err := digests(q.DigestFunction, q.BlobDigests)
	if err != nil {
		return nil, err
	}
	missing, err := s.store.Missing(ctx, ds)
	if err != nil {
		return nil, failure(err)
	}
	r := &repb.FindMissingBlobsResponse{}
	for _, d := range missing {
		r.MissingBlobDigests = append(r.MissingBlobDigests, d.Proto())
	}
	s.guard.Missed(id, len(r.MissingBlobDigests))
	return r, nil
}

// failure is the status of an error of the store.
func failure(err error) error {
	switch {
	case errors.Is(err, cas.ErrNotFound):
		return status.Error(codes.NotFound, "not here")
	case errors.Is(err, cas.ErrClosed):
		return status.Error(codes.Unavailable, "the node is leaving")
	}
	return status.FromContextError(err).Err()
}

// BatchReadBlobs implements ContentAddressableStorage. What does not fit is RESOURCE_EXHAUSTED, to be asked
// for again.
func (s *Blobs) BatchReadBlobs(ctx context.Context, q *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	id, err := s.guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	ds, err := digests(q.DigestFunction, q.Digests)
	if err != nil {
		return nil, err
	}
	n, bytes := 0, int64(0)
	for n < len(ds) && bytes+ds[n].Size() <= BatchBytes {
		bytes += ds[n].Size()
		n++
	}
	data, err := s.store.GetBatch(ctx, ds[:n])
	if err != nil {
		return nil, failure(err)
	}
	r := &repb.BatchReadBlobsResponse{Responses: make([]*repb.BatchReadBlobsResponse_Response, len(ds))}
	missed := 0
	for i := range ds {
		item := &repb.BatchReadBlobsResponse_Response{Digest: q.Digests[i], Status: &spb.Status{}}
		r.Responses[i] = item
		switch {
		case i >= n:
			item.Status.Code = int32(codes.ResourceExhausted)
		case data[i] == nil:
			item.Status.Code = int32(codes.NotFound)
			missed++
		default:
			item.Data = data[i]
		}
	}
	s.guard.Missed(id, missed)
	return r, s.guard.send(ctx, int(bytes))
}

// errReadOnly refuses everything that writes.
var errReadOnly = status.Error(codes.PermissionDenied, "members only read here")

// BatchUpdateBlobs implements ContentAddressableStorage: it refuses.
func (s *Blobs) BatchUpdateBlobs(context.Context, *repb.BatchUpdateBlobsRequest) (*repb.BatchUpdateBlobsResponse, error) {
	return nil, errReadOnly
}

// SplitBlob implements ContentAddressableStorage: it refuses.
func (s *Blobs) SplitBlob(context.Context, *repb.SplitBlobRequest) (*repb.SplitBlobResponse, error) {
	return nil, errReadOnly
}

// SpliceBlob implements ContentAddressableStorage: it refuses.
func (s *Blobs) SpliceBlob(context.Context, *repb.SpliceBlobRequest) (*repb.SpliceBlobResponse, error) {
	return nil, errReadOnly
}

// Read implements ByteStream for plain bytes.
func (s *Blobs) Read(q *bspb.ReadRequest, stream grpc.ServerStreamingServer[bspb.ReadResponse]) error {
	ctx := stream.Context()
	id, err := s.guard.Admit(ctx)
	if err != nil {
		return err
	}
	d, err := parseName(q.ResourceName)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if q.ReadOffset < 0 || q.ReadOffset > d.Size() || q.ReadLimit < 0 {
		return status.Error(codes.OutOfRange, "offset or limit outside of the blob")
	}
	r, err := s.store.NewReader(ctx, d)
	if err != nil {
		s.guard.Missed(id, 1)
		return failure(err)
	}
	defer r.Close()
	end := d.Size()
	if q.ReadLimit > 0 {
		end = min(end, q.ReadOffset+min(q.ReadLimit, end))
	}
	// SendMsg has taken the bytes when it returns: one buffer does for the whole stream.
	buffer := make([]byte, min(chunk, end-q.ReadOffset))
	for at := q.ReadOffset; at < end; {
		part := buffer[:min(chunk, end-at)]
		if n, err := r.ReadAt(part, at); err != nil && (err != io.EOF || n < len(part)) {
			return failure(err)
		}
		if err := s.guard.send(ctx, len(part)); err != nil {
			return err
		}
		if err := stream.Send(&bspb.ReadResponse{Data: part}); err != nil {
			return err
		}
		at += int64(len(part))
	}
	return nil
}

// parseName reads blobs/[function/]hash/size, the only form members use.
func parseName(name string) (digest.Digest, error) {
	rest, found := strings.CutPrefix(name, "blobs/")
	if !found {
		return digest.Digest{}, errors.New("not a blob's name: " + strconv.Quote(name[:min(len(name), 100)]))
	}
	fn := digest.SHA256
	if b, is := strings.CutPrefix(rest, "blake3/"); is {
		fn, rest = digest.BLAKE3, b
	}
	return digest.ParseString(fn, rest)
}
