package bridge

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// output is one output of an action: one of the three.
type output struct {
	path      string // clean, "" for one that is not below the directory the action ran in
	file      *repb.OutputFile
	symlink   *repb.OutputSymlink
	directory *repb.OutputDirectory
}

// outputs yields everything that a result names.
func outputs(r *repb.ActionResult) iter.Seq[output] {
	return func(yield func(output) bool) {
		for _, f := range r.GetOutputFiles() {
			if !yield(output{path: below(f.GetPath()), file: f}) {
				return
			}
		}
		for _, d := range r.GetOutputDirectories() {
			if !yield(output{path: below(d.GetPath()), directory: d}) {
				return
			}
		}
		//lint:ignore SA1019 clients of API 2.0 fill these lists
		for _, list := range [][]*repb.OutputSymlink{r.GetOutputSymlinks(), r.GetOutputFileSymlinks(), r.GetOutputDirectorySymlinks()} {
			for _, s := range list {
				if !yield(output{path: below(s.GetPath()), symlink: s}) {
					return
				}
			}
		}
	}
}

// below cleans an output path; "" for one that is empty, absolute or leads up.
func below(p string) string {
	clean := path.Clean(p)
	if p == "" || clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(clean, "/") {
		return ""
	}
	return clean
}

// layout lays outputs out as one directory. What comes later takes the place of what is in its way.
type layout struct {
	fn    digest.Function
	blobs Blobs
	root  *folder
}

// folder is a directory that is being filled; leaf is set for one that is in the store already.
type folder struct {
	leaf  digest.Digest
	nodes map[string]*child
}

// child is one of the three.
type child struct {
	file    *tree.File
	symlink *tree.Symlink
	folder  *folder
}

func newFolder() *folder { return &folder{nodes: map[string]*child{}} }

func newLayout(fn digest.Function, blobs Blobs) *layout {
	return &layout{fn: fn, blobs: blobs, root: newFolder()}
}

// add lays out the outputs of one result.
func (l *layout) add(ctx context.Context, r *repb.ActionResult) error {
	for o := range outputs(r) {
		if o.path == "" {
			continue
		}
		if most := tree.DefaultLimits().MaxDepth - 1; strings.Count(o.path, "/") > most { // who made the result may be anybody
			return fmt.Errorf("output %.200q is below more than %d directories", o.path, most)
		}
		c, err := l.child(ctx, o)
		if err != nil {
			return fmt.Errorf("output %.200q: %w", o.path, err)
		}
		at := l.root
		dir, base := path.Split(o.path)
		for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
			if part == "" {
				continue
			}
			next := at.nodes[part]
			if next == nil || next.folder == nil || !next.folder.leaf.IsZero() {
				next = &child{folder: newFolder()}
				at.nodes[part] = next
			}
			at = next.folder
		}
		at.nodes[base] = c
	}
	return nil
}

// child makes the node of an output.
func (l *layout) child(ctx context.Context, o output) (*child, error) {
	name := path.Base(o.path)
	switch {
	case o.file != nil:
		d, err := digest.FromProto(l.fn, o.file.Digest)
		return &child{file: &tree.File{Name: name, Digest: d, Executable: o.file.IsExecutable}}, err
	case o.symlink != nil:
		return &child{symlink: &tree.Symlink{Name: name, Target: o.symlink.Target}}, nil
	}
	root, err := l.directory(ctx, o.directory)
	return &child{folder: &folder{leaf: root}}, err
}

// directory gives the root of an output directory, whose Directories are in the store afterwards.
func (l *layout) directory(ctx context.Context, o *repb.OutputDirectory) (digest.Digest, error) {
	if o.TreeDigest == nil {
		return digest.FromProto(l.fn, o.RootDirectoryDigest)
	}
	d, err := digest.FromProto(l.fn, o.TreeDigest)
	if err != nil {
		return d, err
	}
	contents, err := l.blobs.GetBatch(ctx, []digest.Digest{d})
	if err != nil {
		return d, err
	}
	if contents[0] == nil {
		return d, &tree.MissingError{Digests: []digest.Digest{d}}
	}
	t, err := tree.FromTreeProto(l.fn, contents[0], tree.Limits{})
	if err != nil {
		return d, err
	}
	var blobs []cas.Blob
	for _, d := range t.Directories() {
		blobs = append(blobs, cas.Blob{Digest: d, Data: t.Directory(d).Encoded()})
	}
	return t.Digest(), errors.Join(l.blobs.PutBatch(ctx, blobs)...)
}

// store stores the directory of everything that was laid out.
func (l *layout) store(ctx context.Context) (digest.Digest, error) {
	b := tree.NewBuilder(l.fn)
	root, err := l.root.build(b)
	if err != nil {
		return root, err
	}
	var blobs []cas.Blob
	for d, data := range b.Blobs {
		blobs = append(blobs, cas.Blob{Digest: d, Data: data})
	}
	return root, errors.Join(l.blobs.PutBatch(ctx, blobs)...)
}

// build makes the Directory messages from the leaves up.
func (f *folder) build(b *tree.Builder) (digest.Digest, error) {
	if !f.leaf.IsZero() {
		return f.leaf, nil
	}
	var d tree.Directory
	for name, c := range f.nodes {
		switch {
		case c.file != nil:
			d.Files = append(d.Files, *c.file)
		case c.symlink != nil:
			d.Symlinks = append(d.Symlinks, *c.symlink)
		default:
			sub, err := c.folder.build(b)
			if err != nil {
				return digest.Digest{}, err
			}
			d.Directories = append(d.Directories, tree.Subdirectory{Name: name, Digest: sub})
		}
	}
	return b.Add(&d)
}

// within gives the directory at a path below root; for a file or symlink, a directory of it alone.
func within(ctx context.Context, blobs Blobs, root digest.Digest, at string) (digest.Digest, error) {
	clean := below(at)
	if clean == "" {
		return root, fmt.Errorf("%.200q is no path below the outputs: %w", at, ErrNotFound)
	}
	t, err := tree.Load(ctx, blobs, root, tree.Limits{})
	if err != nil {
		return root, err
	}
	dir, parts := t.Root(), strings.Split(clean, "/")
	for i, part := range parts {
		last := i == len(parts)-1
		next, found := childDirectory(dir, part)
		switch {
		case found && last:
			return next, nil
		case found:
			dir = t.Directory(next)
			continue
		case last:
			if alone := only(dir, part); alone != nil {
				b := tree.NewBuilder(root.Function())
				d, err := b.Add(alone)
				if err != nil {
					return d, err
				}
				return d, errors.Join(blobs.PutBatch(ctx, []cas.Blob{{Digest: d, Data: firstBlob(b)}})...)
			}
		}
		return root, fmt.Errorf("there is no %.200q among the outputs: %w", clean, ErrNotFound)
	}
	return root, nil // not reached: parts has one element at least
}

func childDirectory(dir *tree.Directory, name string) (digest.Digest, bool) {
	for i := range dir.Directories {
		if dir.Directories[i].Name == name {
			return dir.Directories[i].Digest, true
		}
	}
	return digest.Digest{}, false
}

// only is a directory of the file or symlink name of dir; nil when there is none.
func only(dir *tree.Directory, name string) *tree.Directory {
	for _, f := range dir.Files {
		if f.Name == name {
			return &tree.Directory{Files: []tree.File{f}}
		}
	}
	for _, s := range dir.Symlinks {
		if s.Name == name {
			return &tree.Directory{Symlinks: []tree.Symlink{s}}
		}
	}
	return nil
}

func firstBlob(b *tree.Builder) []byte {
	for _, data := range b.Blobs {
		return data
	}
	return nil
}
