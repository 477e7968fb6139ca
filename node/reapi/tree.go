package reapi

import (
	"context"
	"fmt"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/buffer"
)

// The most directories, and bytes of them, that one GetTreeResponse carries.
const (
	maxPage      = 4096
	maxPageBytes = 2 << 20
)

// treeBatch is how many directories are read from the store at once.
const treeBatch = 512

// GetTree sends the directories below a root, each once, parents before children: level by level in
// the order in which their parents name them. A page token is a number of directories to skip.
// Missing subtrees are left out; a missing root is NOT_FOUND.
func (s *contentService) GetTree(q *repb.GetTreeRequest, stream grpc.ServerStreamingServer[repb.GetTreeResponse]) error {
	if err := CheckInstance(q.InstanceName); err != nil {
		return err
	}
	fn, err := function(q.DigestFunction)
	if err != nil {
		return err
	}
	root, err := digestField("root_digest", fn, q.RootDigest)
	if err != nil {
		return err
	}
	page := &treePage{stream: stream, size: maxPage}
	if page.skip, err = pageToken(q.PageToken); err != nil {
		return err
	}
	if q.PageSize < 0 {
		return invalid("page_size", "%d is negative", q.PageSize)
	} else if q.PageSize > 0 {
		page.size = min(int(q.PageSize), maxPage)
	}
	w := &treeWalk{blobs: s.blobs, fn: fn, limit: s.limits.MaxTreeNodes, seen: map[digest.Digest]bool{root: true}}
	if err := w.walk(stream.Context(), root, page.add); err != nil {
		return err
	}
	if page.skip > page.count {
		return invalid("page_token", "%q is beyond the end", q.PageToken)
	}
	return page.send(false)
}

// pageToken reads a token.
func pageToken(token string) (int, error) {
	if token == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(token)
	if err != nil || n <= 0 || strconv.Itoa(n) != token {
		return 0, invalid("page_token", "%q is not from this server", token)
	}
	return n, nil
}

// treeWalk visits directories level by level.
type treeWalk struct {
	blobs Batches
	fn    digest.Function
	limit int
	seen  map[digest.Digest]bool
}

// walk visits root and what is below it with each directory's bytes.
func (w *treeWalk) walk(ctx context.Context, root digest.Digest, visit func([]byte) error) error {
	level := []digest.Digest{root}
	for first := true; len(level) > 0; first = false {
		var next []digest.Digest
		for start := 0; start < len(level); start += treeBatch {
			batch := level[start:min(start+treeBatch, len(level))]
			data, err := w.blobs.GetBatch(ctx, batch)
			if err != nil {
				return err
			}
			if first && data[0] == nil {
				return fmt.Errorf("tree root %s: %w", root.Short(), cas.ErrNotFound)
			}
			for i, b := range data {
				if b == nil {
					continue
				}
				if next, err = w.children(next, batch[i], b); err != nil {
					return err
				}
				if err := visit(b); err != nil {
					return err
				}
			}
		}
		level = next
	}
	return nil
}

// children appends the directories that d's content b names and that were not seen yet.
func (w *treeWalk) children(next []digest.Digest, d digest.Digest, b []byte) ([]digest.Digest, error) {
	var dir repb.Directory
	if err := proto.Unmarshal(b, &dir); err != nil {
		return nil, invalid("root_digest", "%s is not a directory: %v", d.Short(), err)
	}
	for _, node := range dir.Directories {
		child, err := digest.FromProto(w.fn, node.Digest)
		if err != nil {
			return nil, invalid("root_digest", "directory %s names %q: %v", d.Short(), node.Name, err)
		}
		if w.seen[child] {
			continue
		}
		if len(w.seen) == w.limit {
			return nil, invalid("root_digest", "tree has more than %d directories", w.limit)
		}
		w.seen[child] = true
		next = append(next, child)
	}
	return next, nil
}

// treePage gathers directories into responses.
type treePage struct {
	stream grpc.ServerStream
	size   int // directories in a response
	skip   int // directories not to send
	count  int // directories seen
	dirs   [][]byte
	bytes  int
}

// add takes one directory; a response that is full is sent first, since only then it is known that
// another follows.
func (p *treePage) add(dir []byte) error {
	if p.count < p.skip {
		p.count++
		return nil
	}
	if len(p.dirs) == p.size || len(p.dirs) > 0 && p.bytes+len(dir) > maxPageBytes {
		if err := p.send(true); err != nil {
			return err
		}
	}
	p.count++
	p.dirs = append(p.dirs, dir)
	p.bytes += len(dir)
	return nil
}

// send sends what was gathered, with a token when more follows.
func (p *treePage) send(more bool) error {
	r := &treeResponse{dirs: p.dirs}
	if more {
		r.token = strconv.Itoa(p.count)
	}
	p.dirs, p.bytes = nil, 0
	return p.stream.SendMsg(r)
}

// treeResponse is a GetTreeResponse of directories as they are stored.
type treeResponse struct {
	dirs  [][]byte
	token string
}

const (
	tagTreeDirectory = 1<<3 | byte(protowire.BytesType)
	tagTreeToken     = 2<<3 | byte(protowire.BytesType)
)

func (r *treeResponse) encode(p *buffer.Pool) (mem.BufferSlice, error) {
	out := &spool{pool: p}
	for _, dir := range r.dirs {
		out.keep(protowire.AppendVarint(append(out.room(6), tagTreeDirectory), uint64(len(dir))))
		out.add(dir)
	}
	out.keep(appendBytesField(out.room(2+len(r.token)), tagTreeToken, []byte(r.token)))
	return out.finish(), nil
}
