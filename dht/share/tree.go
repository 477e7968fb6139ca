package share

import (
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// GetTree implements ContentAddressableStorage: a whole tree's directories in one call, level by level, each once and as
// it is stored. What is not here is left out; a tree of more than MaxTree directories or MaxTreeBytes is broken off.
func (s *Blobs) GetTree(q *repb.GetTreeRequest, stream grpc.ServerStreamingServer[repb.GetTreeResponse]) error {
	ctx := stream.Context()
	id, err := s.guard.Admit(ctx)
	if err != nil {
		return err
	}
	root, err := digests(q.DigestFunction, []*repb.Digest{q.RootDigest})
	if err != nil {
		return err
	}
	seen, bytes := map[digest.Digest]bool{root[0]: true}, root[0].Size()
	out := &page{stream: stream}
	for level := root; len(level) > 0; {
		if bytes > MaxTreeBytes || len(seen) > MaxTree {
			return status.Errorf(codes.ResourceExhausted, "more than %d directories or %d bytes of them", MaxTree, MaxTreeBytes)
		}
		batch := level[:treePart(level)]
		level = level[len(batch):]
		data, err := s.store.GetBatch(ctx, batch)
		if err != nil {
			return failure(err)
		}
		for i, b := range data {
			if b == nil {
				if batch[i] == root[0] {
					s.guard.Missed(id, 1)
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
					bytes += min(sub.Digest.Size(), MaxTreeBytes)
					level = append(level, sub.Digest)
				}
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

// treePart tells how many of a level's directories are read at once, at least one.
func treePart(level []digest.Digest) int {
	n, bytes := 0, int64(0)
	for n < len(level) && n < treeBatch {
		if bytes += level[n].Size(); n > 0 && bytes > BatchBytes {
			break
		}
		n++
	}
	return n
}

// page gathers directories into messages.
type page struct {
	stream grpc.ServerStreamingServer[repb.GetTreeResponse]
	next   []byte // fields of a GetTreeResponse, with the directories' own bytes: decoded and encoded again they may be others
}

// add takes an encoded directory.
func (p *page) add(b []byte) error {
	p.next = protowire.AppendBytes(protowire.AppendTag(p.next, 1, protowire.BytesType), b)
	if len(p.next) < treePage {
		return nil
	}
	return p.flush()
}

// flush sends what was gathered.
func (p *page) flush() error {
	if len(p.next) == 0 {
		return nil
	}
	r := &repb.GetTreeResponse{}
	r.ProtoReflect().SetUnknown(p.next)
	p.next = nil
	return p.stream.Send(r)
}
