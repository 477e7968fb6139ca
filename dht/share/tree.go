package share

import (
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// GetTree implements ContentAddressableStorage: a whole tree's directories in one call, level by level.
// What is not here is left out.
func (s *Blobs) GetTree(q *repb.GetTreeRequest, stream grpc.ServerStreamingServer[repb.GetTreeResponse]) error {
	ctx := stream.Context()
	id, err := s.guard.admit(ctx)
	if err != nil {
		return err
	}
	root, err := digests(q.DigestFunction, []*repb.Digest{q.RootDigest})
	if err != nil {
		return err
	}
	seen := map[digest.Digest]bool{root[0]: true}
	out := &page{stream: stream}
	for level := root; len(level) > 0; {
		batch := level[:min(treeBatch, len(level))]
		level = level[len(batch):]
		data, err := s.store.GetBatch(ctx, batch)
		if err != nil {
			return failure(err)
		}
		for i, b := range data {
			if b == nil || s.private.Has(batch[i]) {
				if batch[i] == root[0] {
					s.guard.missed(id, 1)
					return failure(cas.ErrNotFound)
				}
				continue
			}
			dir, err := tree.Decode(batch[i].Function(), b)
			if err != nil {
				return status.Error(codes.InvalidArgument, "not a tree")
			}
			for _, sub := range dir.Directories {
				if !seen[sub.Digest] {
					seen[sub.Digest] = true
					level = append(level, sub.Digest)
				}
			}
			if len(seen) > MaxTree {
				return status.Errorf(codes.ResourceExhausted, "more than %d directories", MaxTree)
			}
			if err := s.guard.send(ctx, len(b)); err != nil {
				return err
			}
			if err := out.add(b); err != nil {
				return err
			}
		}
	}
	return out.flush()
}

// page gathers directories into messages.
type page struct {
	stream grpc.ServerStreamingServer[repb.GetTreeResponse]
	next   repb.GetTreeResponse
	bytes  int
}

// add takes an encoded directory.
func (p *page) add(b []byte) error {
	dir := &repb.Directory{}
	if err := proto.Unmarshal(b, dir); err != nil {
		return status.Error(codes.InvalidArgument, "not a tree")
	}
	p.next.Directories = append(p.next.Directories, dir)
	if p.bytes += len(b); p.bytes < treePage {
		return nil
	}
	return p.flush()
}

// flush sends what was gathered.
func (p *page) flush() error {
	if len(p.next.Directories) == 0 {
		return nil
	}
	err := p.stream.Send(&p.next)
	p.next, p.bytes = repb.GetTreeResponse{}, 0
	return err
}
