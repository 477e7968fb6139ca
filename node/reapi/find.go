package reapi

import (
	"context"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// contentService serves ContentAddressableStorage. The generated methods of the hot calls are not
// used: their handlers, replaced in contentDesc, decode into messages of this package.
type contentService struct {
	repb.UnimplementedContentAddressableStorageServer
	blobs    Blobs
	within   func(instance string) Blobs
	limits   Limits
	packer   *packer
	requests sync.Pool // of *digestsRequest
	updates  sync.Pool // of *updateRequest
}

// check validates what is common to all calls with many digests.
func (r *digestsRequest) check() error {
	if err := CheckInstance(r.instance); err != nil {
		return err
	}
	_, err := function(r.function)
	return err
}

// function resolves a request's digest function.
func function(v repb.DigestFunction_Value) (digest.Function, error) {
	fn, err := digest.FunctionFromProto(v)
	if err != nil {
		return 0, invalid("digest_function", "%v", err)
	}
	return fn, nil
}

// digestField validates a digest that stands in a request's field.
func digestField(field string, fn digest.Function, p *repb.Digest) (digest.Digest, error) {
	d, err := digest.FromProto(fn, p)
	if err != nil {
		return d, invalid(field, "%v", err)
	}
	return d, nil
}

// findMissing implements FindMissingBlobs. One malformed digest refuses the call.
func (s *contentService) findMissing(ctx context.Context, r *digestsRequest) (*findResponse, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if len(r.bad) > 0 {
		bad := r.bad[0]
		return nil, invalid(indexed("blob_digests", bad.index), "%v", bad.err)
	}
	missing, err := s.within(r.instance).Missing(ctx, r.digests)
	return &findResponse{missing: missing}, err
}

// handleFind is the gRPC handler of FindMissingBlobs.
func handleFind(srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
	s := srv.(*contentService)
	r := s.request(findFields)
	defer s.requests.Put(r)
	if err := decode(r); err != nil {
		return nil, err
	}
	return around(ctx, r, &grpc.UnaryServerInfo{Server: srv, FullMethod: repb.ContentAddressableStorage_FindMissingBlobs_FullMethodName},
		func(ctx context.Context, _ any) (any, error) { return s.findMissing(ctx, r) })
}

// request gives an empty digestsRequest.
func (s *contentService) request(fields digestsFields) *digestsRequest {
	r, ok := s.requests.Get().(*digestsRequest)
	if !ok {
		r = &digestsRequest{}
	}
	r.reset(fields)
	return r
}
