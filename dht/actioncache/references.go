package actioncache

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// names are the digests that stand in a result itself.
type names struct {
	blobs       []digest.Digest // files, Tree messages, stdout, stderr
	directories []directory
}

// directory is an output directory; a zero digest stands for one that was not given.
type directory struct{ tree, root digest.Digest }

// named reads the digests in a result, which were made by fn. Errors: ErrInvalid.
func named(fn digest.Function, result *repb.ActionResult) (*names, error) {
	n := &names{blobs: make([]digest.Digest, 0, len(result.GetOutputFiles())+len(result.GetOutputDirectories())+2)}
	for _, f := range result.GetOutputFiles() {
		d, err := digest.FromProto(fn, f.GetDigest())
		if err != nil {
			return nil, fmt.Errorf("%w: output file %.200q: %w", ErrInvalid, f.GetPath(), err)
		}
		n.blobs = append(n.blobs, d)
	}
	for _, o := range result.GetOutputDirectories() {
		d, err := directoryOf(fn, o)
		if err != nil {
			return nil, fmt.Errorf("%w: output directory %.200q: %w", ErrInvalid, o.GetPath(), err)
		}
		n.directories = append(n.directories, d)
		if !d.tree.IsZero() {
			n.blobs = append(n.blobs, d.tree)
		}
	}
	for _, p := range []*repb.Digest{result.GetStdoutDigest(), result.GetStderrDigest()} {
		if p == nil {
			continue
		}
		d, err := digest.FromProto(fn, p)
		if err != nil {
			return nil, fmt.Errorf("%w: stdout or stderr: %w", ErrInvalid, err)
		}
		n.blobs = append(n.blobs, d)
	}
	return n, nil
}

func directoryOf(fn digest.Function, o *repb.OutputDirectory) (d directory, err error) {
	if o.GetTreeDigest() == nil && o.GetRootDirectoryDigest() == nil {
		return d, errors.New("it has no digest")
	}
	if p := o.GetTreeDigest(); p != nil {
		if d.tree, err = digest.FromProto(fn, p); err != nil {
			return d, err
		}
	}
	if p := o.GetRootDirectoryDigest(); p != nil {
		d.root, err = digest.FromProto(fn, p)
	}
	return d, err
}

// references lists every blob that must be there for a result to be complete, each once. Errors:
// errIncomplete when one that must be read for it is absent, ErrInvalid when the result or one of
// its trees is malformed.
func (c *Cache) references(ctx context.Context, fn digest.Function, result *repb.ActionResult) ([]digest.Digest, error) {
	n, err := named(fn, result)
	if err != nil {
		return nil, err
	}
	all := set{seen: make(map[digest.Digest]struct{}, len(n.blobs))}
	all.add(n.blobs)
	messages, err := c.treeMessages(ctx, n.directories)
	if err != nil {
		return nil, err
	}
	for i, d := range n.directories {
		if messages[i] != nil {
			t, err := tree.FromTreeProto(fn, messages[i], c.options.Trees)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
			}
			if !d.root.IsZero() && d.root != t.Digest() {
				return nil, fmt.Errorf("%w: root directory %s is not the tree's %s", ErrInvalid, d.root.Short(), t.Digest().Short())
			}
			all.add(t.Files())
			if !d.root.IsZero() {
				all.add(t.Directories())
			}
			continue
		}
		t, err := tree.Load(ctx, c.blobs, d.root, c.options.Trees)
		var missing *tree.MissingError
		switch {
		case errors.As(err, &missing):
			return nil, fmt.Errorf("%w: %w", errIncomplete, err)
		case errors.Is(err, tree.ErrInvalid):
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		case err != nil:
			return nil, err
		}
		all.add(t.Directories())
		all.add(t.Files())
	}
	return all.list, nil
}

// treeMessages reads the Tree message of each directory, nil for one without.
func (c *Cache) treeMessages(ctx context.Context, directories []directory) ([][]byte, error) {
	messages := make([][]byte, len(directories))
	var wanted []digest.Digest
	var places []int
	limit := c.options.Trees.MaxDirectoryBytes
	if limit <= 0 {
		limit = tree.DefaultLimits().MaxDirectoryBytes
	}
	for i, d := range directories {
		if d.tree.IsZero() {
			continue
		}
		if d.tree.Size() > limit {
			return nil, fmt.Errorf("%w: Tree message of %d bytes", ErrInvalid, d.tree.Size())
		}
		wanted, places = append(wanted, d.tree), append(places, i)
	}
	if len(wanted) == 0 {
		return messages, nil
	}
	contents, err := c.blobs.GetBatch(ctx, wanted)
	if err != nil {
		return nil, err
	}
	for i, content := range contents {
		switch {
		case content != nil:
			messages[places[i]] = content
		case wanted[i].IsEmpty():
			messages[places[i]] = []byte{}
		default:
			return nil, fmt.Errorf("%w: %s", errIncomplete, wanted[i])
		}
	}
	return messages, nil
}

// set is a list of distinct digests.
type set struct {
	list []digest.Digest
	seen map[digest.Digest]struct{}
}

func (s *set) add(ds []digest.Digest) {
	for _, d := range ds {
		if _, found := s.seen[d]; !found {
			s.seen[d] = struct{}{}
			s.list = append(s.list, d)
		}
	}
}
