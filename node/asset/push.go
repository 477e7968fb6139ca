package asset

import (
	"context"
	"fmt"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// PushBlob implements Push. Content and references must be present: otherwise FAILED_PRECONDITION with
// every missing blob.
func (s *Service) PushBlob(ctx context.Context, q *rapb.PushBlobRequest) (*rapb.PushBlobResponse, error) {
	if err := s.push(ctx, q, index.Blob, content{"blob_digest", q.BlobDigest}); err != nil {
		return nil, statusOf(err)
	}
	return &rapb.PushBlobResponse{}, nil
}

// PushDirectory implements Push. The whole tree and all references must be present.
func (s *Service) PushDirectory(ctx context.Context, q *rapb.PushDirectoryRequest) (*rapb.PushDirectoryResponse, error) {
	if err := s.push(ctx, q, index.Directory, content{"root_directory_digest", q.RootDirectoryDigest}); err != nil {
		return nil, statusOf(err)
	}
	return &rapb.PushDirectoryResponse{}, nil
}

// content is the digest to associate and the field it came in.
type content struct {
	field  string
	digest *repb.Digest
}

// pushed is what the two messages have in common.
type pushed interface {
	GetInstanceName() string
	GetUris() []string
	GetQualifiers() []*rapb.Qualifier
	GetDigestFunction() digestFunction
	references
}

type references interface {
	GetExpireAt() *timestamppb.Timestamp
	GetReferencesBlobs() []*repb.Digest
	GetReferencesDirectories() []*repb.Digest
}

func (s *Service) push(ctx context.Context, q pushed, kind index.Kind, c content) error {
	fn, err := checkNames(q.GetInstanceName(), q.GetUris(), q.GetDigestFunction())
	if err != nil {
		return err
	}
	qualifiers, err := parseQualifiers(q.GetQualifiers(), len(q.GetUris()))
	if err != nil {
		return err
	}
	a := index.Asset{Kind: kind, URIs: q.GetUris(), Qualifiers: qualifiers.identity()}
	if a.Digest, err = digest.FromProto(fn, c.digest); err != nil {
		return field(c.field, "%v", err)
	}
	if a.Blobs, err = digests("references_blobs", fn, q.GetReferencesBlobs()); err != nil {
		return err
	}
	if a.Directories, err = digests("references_directories", fn, q.GetReferencesDirectories()); err != nil {
		return err
	}
	if t := q.GetExpireAt(); t != nil {
		if err := t.CheckValid(); err != nil {
			return field("expire_at", "%v", err)
		}
		a.Expires = t.AsTime()
	}
	if err := s.pushable(ctx, &a, qualifiers); err != nil {
		return err
	}
	return s.assets.Push(ctx, a)
}

func digests(name string, fn digest.Function, ps []*repb.Digest) ([]digest.Digest, error) {
	ds := make([]digest.Digest, len(ps))
	for i, p := range ps {
		d, err := digest.FromProto(fn, p)
		if err != nil {
			return nil, field(fmt.Sprintf("%s[%d]", name, i), "%v", err)
		}
		ds[i] = d
	}
	return ds, nil
}
