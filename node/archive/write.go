package archive

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Source is where Write finds content.
type Source interface {
	// GetBatch gives contents in order, nil for a blob that is absent.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	// NewReader opens one blob.
	NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error)
	// Pin keeps the present ones of ds until it is released and gives the others.
	Pin(ds []digest.Digest) (*cas.Pin, []digest.Digest)
}

// A window is read at once: at most so many files and bytes. A file of more than maxSmall bytes is
// streamed.
const (
	maxWindow      = 1024
	maxWindowBytes = 4 << 20
	maxSmall       = 256 << 10
)

// Write writes the tree below root as a tar, and nothing if a blob of it is absent. Errors:
// *tree.MissingError with everything absent, *tree.InvalidError, the store's and w's.
func Write(ctx context.Context, w io.Writer, from Source, root digest.Digest) error {
	t, err := tree.Load(ctx, from, root, tree.Limits{})
	if err != nil {
		return fmt.Errorf("write tar of %s: %w", root.Short(), err)
	}
	pin, missing := from.Pin(append(t.Directories(), t.Files()...))
	defer pin.Release()
	if len(missing) > 0 {
		return fmt.Errorf("write tar of %s: %w", root.Short(), &tree.MissingError{Digests: missing})
	}
	out := &writer{ctx: ctx, from: from, tree: t, tar: tar.NewWriter(w)}
	err = out.directory("", t.Root())
	if err == nil {
		err = out.flush()
	}
	if err == nil {
		err = out.tar.Close()
	}
	if err != nil {
		return fmt.Errorf("write tar of %s: %w", root.Short(), err)
	}
	return nil
}

// writer is one Write.
type writer struct {
	ctx  context.Context
	from Source
	tree *tree.Tree
	tar  *tar.Writer

	window []entry // not written yet
	bytes  int64   // of small files in window
}

// entry is a header and, for a file, the content behind it.
type entry struct {
	header *tar.Header
	digest digest.Digest // of a file
}

func (e *entry) small() bool {
	return e.header.Typeflag == tar.TypeReg && e.header.Size <= maxSmall
}

// directory adds everything in dir, which is at path, in the order of names.
func (w *writer) directory(path string, dir *tree.Directory) error {
	type node struct {
		name string
		add  func(path string) error
	}
	nodes := make([]node, 0, len(dir.Files)+len(dir.Directories)+len(dir.Symlinks))
	for i := range dir.Files {
		f := &dir.Files[i]
		nodes = append(nodes, node{f.Name, func(path string) error { return w.file(path, f) }})
	}
	for i := range dir.Symlinks {
		s := &dir.Symlinks[i]
		nodes = append(nodes, node{s.Name, func(path string) error {
			return w.add(entry{header: &tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: s.Target, Mode: 0o777}})
		}})
	}
	for i := range dir.Directories {
		sub := &dir.Directories[i]
		nodes = append(nodes, node{sub.Name, func(path string) error {
			if err := w.add(entry{header: &tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: 0o755}}); err != nil {
				return err
			}
			return w.directory(path, w.tree.Directory(sub.Digest))
		}})
	}
	slices.SortFunc(nodes, func(a, b node) int { return cmp.Compare(a.name, b.name) })
	for _, n := range nodes {
		below := n.name
		if path != "" {
			below = path + "/" + n.name
		}
		if err := n.add(below); err != nil {
			return err
		}
	}
	return nil
}

// file adds one file.
func (w *writer) file(path string, f *tree.File) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Size: f.Digest.Size(), Mode: 0o644}
	if f.Executable {
		h.Mode = 0o755
	}
	return w.add(entry{header: h, digest: f.Digest})
}

// add puts an entry into the window, which is written when it is full.
func (w *writer) add(e entry) error {
	e.header.ModTime = tree.ModTime
	if e.small() && w.bytes+e.header.Size > maxWindowBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.window = append(w.window, e)
	if e.small() {
		w.bytes += e.header.Size
	}
	if len(w.window) == maxWindow {
		return w.flush()
	}
	return nil
}

// flush writes the window.
func (w *writer) flush() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var ds []digest.Digest
	for i := range w.window {
		if w.window[i].small() {
			ds = append(ds, w.window[i].digest)
		}
	}
	contents, err := w.from.GetBatch(w.ctx, ds)
	if err != nil {
		return err
	}
	for i := range w.window {
		e := &w.window[i]
		if err := w.tar.WriteHeader(e.header); err != nil {
			return err
		}
		switch {
		case e.small():
			content := contents[0]
			contents = contents[1:]
			if content == nil {
				return fmt.Errorf("%s: %w", e.header.Name, &tree.MissingError{Digests: []digest.Digest{e.digest}})
			}
			if _, err := w.tar.Write(content); err != nil {
				return err
			}
		case e.header.Typeflag == tar.TypeReg:
			if err := w.stream(e.digest); err != nil {
				return err
			}
		}
	}
	w.window, w.bytes = w.window[:0], 0
	return nil
}

// stream writes a large file.
func (w *writer) stream(d digest.Digest) error {
	r, err := w.from.NewReader(w.ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w.tar, io.NewSectionReader(r, 0, d.Size()))
	return err
}
