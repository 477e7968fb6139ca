package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Sink is where Read puts content.
type Sink interface {
	// PutBatch stores blobs and gives an error for each, nil for success.
	PutBatch(ctx context.Context, blobs []cas.Blob) []error
	// PutFile stores a file that nobody writes to any more; it may consume it.
	PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error)
}

// Limits bound what is taken in; a field that is 0 means the default.
type Limits struct {
	MaxBytes int64 // of all files together, unpacked; default 64 GiB
	MaxNodes int   // files, symlinks and directories; default that of package tree
}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = 64 << 30
	}
	if l.MaxNodes <= 0 {
		l.MaxNodes = tree.DefaultLimits().MaxNodes
	}
	return l
}

// RefusedError is an entry that cannot become part of a tree.
type RefusedError struct{ Path, Reason string }

func (e *RefusedError) Error() string { return fmt.Sprintf("%.300q: %s", e.Path, e.Reason) }

func refuse(path, format string, args ...any) error {
	return &RefusedError{path, fmt.Sprintf(format, args...)}
}

// ReadOptions say how a tar is read.
type ReadOptions struct {
	Function digest.Function // of the tree's digests
	Dir      string          // for large files until they are stored; on the store's file system
	Limits   Limits
}

// Read stores a tar as a tree and gives its root Directory. An entry that comes again replaces the one
// before. Errors: *RefusedError, the store's, and that r is no tar.
func Read(ctx context.Context, r io.Reader, to Sink, o ReadOptions) (digest.Digest, error) {
	in := &reader{ctx: ctx, to: to, options: o, limits: o.Limits.withDefaults(), root: newFolder()}
	err := in.read(tar.NewReader(r))
	if err == nil {
		err = in.flush()
	}
	if err == nil {
		err = in.root.confine()
	}
	if err != nil {
		return digest.Digest{}, fmt.Errorf("read tar: %w", err)
	}
	builder := tree.NewBuilder(o.Function)
	root, err := in.root.build(builder)
	if err == nil {
		_, err = builder.Tree(root, tree.Limits{MaxNodes: in.limits.MaxNodes})
	}
	if err != nil {
		return digest.Digest{}, fmt.Errorf("read tar: %w", err)
	}
	for d, data := range builder.Blobs {
		if err := in.put(d, data); err != nil {
			return digest.Digest{}, err
		}
	}
	return root, in.flush()
}

// reader is one Read.
type reader struct {
	ctx     context.Context
	to      Sink
	options ReadOptions
	limits  Limits
	root    *folder
	nodes   int
	bytes   int64 // of files

	batch []cas.Blob // not stored yet
	held  int        // bytes of batch
}

// read takes every entry.
func (in *reader) read(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := in.ctx.Err(); err != nil {
			return err
		}
		if err := in.entry(t, h); err != nil {
			return err
		}
	}
}

// entry takes one entry.
func (in *reader) entry(t *tar.Reader, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := entryPath(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return refuse(h.Name, "the root is not a directory")
		}
		return nil
	}
	if h.Typeflag == tar.TypeDir {
		_, err := in.open(name)
		return err
	}
	parent, err := in.open(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		d, err := in.file(t, h)
		if err != nil {
			return err
		}
		return in.add(parent, name, node{file: &tree.File{Name: base, Digest: d, Executable: h.Mode&0o111 != 0}})
	case tar.TypeSymlink:
		return in.add(parent, name, node{symlink: &tree.Symlink{Name: base, Target: h.Linkname}})
	case tar.TypeLink:
		return in.link(parent, name, h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		return refuse(h.Name, "it is a device node, which a tree cannot hold")
	case tar.TypeFifo:
		return refuse(h.Name, "it is a named pipe, which a tree cannot hold")
	}
	return refuse(h.Name, "it is of the unknown type %q", h.Typeflag)
}

// link makes a hard link: the same content under another name.
func (in *reader) link(parent *folder, name, target string) error {
	from, err := entryPath(target)
	if err != nil {
		return refuse(name, "it is a hard link to %.200q, which leaves the root", target)
	}
	dir, found := in.root.find(path.Dir(from))
	if !found || dir.nodes[path.Base(from)].file == nil {
		return refuse(name, "it is a hard link to %.200q, which is no file of the tar before it", target)
	}
	copied := *dir.nodes[path.Base(from)].file
	copied.Name = path.Base(name)
	return in.add(parent, name, node{file: &copied})
}

// entryPath gives an entry's path below the root, "" for the root itself.
func entryPath(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", refuse(name, "its path is absolute")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", refuse(name, "its path leaves the root")
		}
	}
	if clean := path.Clean(name); clean != "." {
		return clean, nil
	}
	return "", nil
}

// file stores the content of an entry.
func (in *reader) file(t *tar.Reader, h *tar.Header) (digest.Digest, error) {
	if h.Size < 0 || h.Size > in.limits.MaxBytes-in.bytes {
		return digest.Digest{}, refuse(h.Name, "the files have more than %d bytes", in.limits.MaxBytes)
	}
	in.bytes += h.Size
	if h.Size > maxSmall {
		return in.large(t, h)
	}
	data := make([]byte, h.Size)
	if _, err := io.ReadFull(t, data); err != nil {
		return digest.Digest{}, fmt.Errorf("%.300q: %w", h.Name, err)
	}
	d := in.options.Function.Of(data)
	return d, in.put(d, data)
}

// large stores the content of an entry by way of a file.
func (in *reader) large(t *tar.Reader, h *tar.Header) (d digest.Digest, err error) {
	file, err := os.CreateTemp(in.options.Dir, temporary)
	if err != nil {
		return d, err
	}
	defer os.Remove(file.Name()) // the store may have taken it
	_, err = io.Copy(file, t)
	if err = errors.Join(err, file.Close()); err != nil {
		return d, fmt.Errorf("%.300q: %w", h.Name, err)
	}
	return in.to.PutFile(in.ctx, in.options.Function, file.Name())
}

// temporary is how files on the way into a store are called.
const temporary = "archive-"

// put stores a small blob, soon.
func (in *reader) put(d digest.Digest, data []byte) error {
	in.batch = append(in.batch, cas.Blob{Digest: d, Data: data})
	if in.held += len(data); in.held < maxWindowBytes && len(in.batch) < maxWindow {
		return nil
	}
	return in.flush()
}

// flush stores what was put.
func (in *reader) flush() error {
	err := errors.Join(in.to.PutBatch(in.ctx, in.batch)...)
	in.batch, in.held = in.batch[:0], 0
	return err
}

// folder is a directory that is being filled.
type folder struct{ nodes map[string]node }

// node is one of the three.
type node struct {
	file    *tree.File
	symlink *tree.Symlink
	folder  *folder
}

func newFolder() *folder { return &folder{map[string]node{}} }

// count notes one more node of the tree.
func (in *reader) count(name string) error {
	if in.nodes++; in.nodes >= in.limits.MaxNodes {
		return refuse(name, "the tar has more than %d files, symlinks and directories", in.limits.MaxNodes)
	}
	return nil
}

// open gives the directory at a clean path, and makes it and those above it.
func (in *reader) open(name string) (*folder, error) {
	at := in.root
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		n, found := at.nodes[part]
		switch {
		case !found:
			if err := in.count(name); err != nil {
				return nil, err
			}
			n.folder = newFolder()
			at.nodes[part] = n
		case n.symlink != nil:
			return nil, refuse(name, "a directory on its path, %q, is a symlink", part)
		case n.file != nil:
			return nil, refuse(name, "a directory on its path, %q, is a file", part)
		}
		at = n.folder
	}
	return at, nil
}

// add puts n, whose path is name, into its directory, in place of what has its name.
func (in *reader) add(dir *folder, name string, n node) error {
	base := path.Base(name)
	before, found := dir.nodes[base]
	if before.folder != nil {
		return refuse(name, "it has the name of a directory")
	}
	if !found {
		if err := in.count(name); err != nil {
			return err
		}
	}
	dir.nodes[base] = n
	return nil
}

// find gives the directory at a clean path if it is there.
func (f *folder) find(name string) (*folder, bool) {
	if name == "." {
		return f, true
	}
	at := f
	for part := range strings.SplitSeq(name, "/") {
		if at = at.nodes[part].folder; at == nil {
			return nil, false
		}
	}
	return at, true
}

// build makes the Directory messages from the leaves up.
func (f *folder) build(b *tree.Builder) (digest.Digest, error) {
	var d tree.Directory
	for name, n := range f.nodes {
		switch {
		case n.file != nil:
			d.Files = append(d.Files, *n.file)
		case n.symlink != nil:
			d.Symlinks = append(d.Symlinks, *n.symlink)
		default:
			below, err := n.folder.build(b)
			if err != nil {
				return digest.Digest{}, err
			}
			d.Directories = append(d.Directories, tree.Subdirectory{Name: name, Digest: below})
		}
	}
	return b.Add(&d)
}

// confine refuses every symlink that leads out of the root, and trees too deep to walk.
func (f *folder) confine() error { return confine([]*folder{f}, nil) }

// confine looks at the directory whose ancestors, the root first and itself last, are walk.
func confine(walk []*folder, names []string) error {
	if most := tree.DefaultLimits().MaxDepth; len(walk) > most {
		return refuse(path.Join(names...), "it is more than %d directories deep", most)
	}
	for name, n := range walk[len(walk)-1].nodes {
		here := append(names[:len(names):len(names)], name)
		if n.symlink != nil && escapes(walk, n.symlink.Target) {
			return refuse(path.Join(here...), "it is a symlink to %.200q, which leaves the root", n.symlink.Target)
		}
		if n.folder != nil {
			if err := confine(append(walk[:len(walk):len(walk)], n.folder), here); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxFollowed is how many symlinks a path may lead through: what Linux follows.
const maxFollowed = 40

// escapes reports whether following target from the last directory of walk passes above the first. What
// cannot be followed to its end, being absent, a file, or a loop, stays inside as far as it goes.
func escapes(walk []*folder, target string) bool {
	walk = append([]*folder(nil), walk...)
	var rest []string
	enter := func(target string) {
		if strings.HasPrefix(target, "/") { // it starts at the root
			walk = walk[:1]
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	enter(target)
	for followed := 0; len(rest) > 0 && followed <= maxFollowed; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if walk = walk[:len(walk)-1]; len(walk) == 0 {
				return true
			}
			continue
		}
		var n node
		if dir := walk[len(walk)-1]; dir != nil {
			n = dir.nodes[part]
		}
		if n.symlink != nil {
			followed++
			enter(n.symlink.Target)
			continue
		}
		walk = append(walk, n.folder) // nil where nothing is
	}
	return false
}
