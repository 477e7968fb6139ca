package asset

import (
	"context"
	"errors"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Blobs is what the index needs of the blob store.
type Blobs interface {
	// Missing gives those of ds that are absent and extends the lifetimes of the others.
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
	// GetBatch gives contents in order, nil for a blob that is absent.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	// Pin keeps the present ones of ds until it is released and gives the others.
	Pin(ds []digest.Digest) (*cas.Pin, []digest.Digest)
	// Removals grows whenever a blob leaves the store.
	Removals() uint64
}

// closure is everything an asset needs, loaded.
type closure struct {
	blobs []digest.Digest // content and references that are blobs
	trees []*tree.Tree
}

// load reads the trees of an asset and asks for everything. Errors: *tree.MissingError with all that is
// absent, *tree.InvalidError, the store's.
func load(ctx context.Context, blobs Blobs, a *Asset, limits tree.Limits) (*closure, error) {
	c := &closure{blobs: append([]digest.Digest(nil), a.Blobs...)}
	roots := append([]digest.Digest(nil), a.Directories...)
	if a.Kind == Directory {
		roots = append(roots, a.Digest)
	} else {
		c.blobs = append(c.blobs, a.Digest)
	}
	wanted := append([]digest.Digest(nil), c.blobs...)
	var absent []digest.Digest
	for _, root := range roots {
		t, err := tree.Load(ctx, blobs, root, limits)
		var missing *tree.MissingError
		if errors.As(err, &missing) {
			absent = append(absent, missing.Digests...)
			continue
		}
		if err != nil {
			return nil, err
		}
		c.trees = append(c.trees, t)
		wanted = append(wanted, t.Directories()...)
		wanted = append(wanted, t.Files()...)
	}
	missing, err := blobs.Missing(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if absent = append(absent, missing...); len(absent) > 0 {
		return nil, &tree.MissingError{Digests: distinct(absent)}
	}
	return c, nil
}

// distinct removes repetitions and keeps the order.
func distinct(ds []digest.Digest) []digest.Digest {
	seen := make(map[digest.Digest]bool, len(ds))
	kept := ds[:0]
	for _, d := range ds {
		if !seen[d] {
			seen[d] = true
			kept = append(kept, d)
		}
	}
	return kept
}

// holds pins closures. Each distinct directory is pinned once, with its files, however many assets
// contain it: assets that share most of their trees cost little more than one. Used under the index's
// mutex.
type holds struct {
	pins        pinner
	directories map[digest.Digest]*held
	bytes       int64 // pinned; a file of several distinct directories counts in each
}

// pinner is the part of Blobs that holds need.
type pinner interface {
	Pin(ds []digest.Digest) (*cas.Pin, []digest.Digest)
}

// held is a pinned directory with its files.
type held struct {
	users    int // directories and holds
	pin      *cas.Pin
	children []digest.Digest
	bytes    int64
}

// hold is the pins of one asset.
type hold struct {
	pin   *cas.Pin // of its blobs
	bytes int64    // of its blobs
	roots []digest.Digest
}

// take pins a closure. On a *tree.MissingError nothing stays pinned.
func (h *holds) take(c *closure) (*hold, error) {
	pin, missing := h.pins.Pin(c.blobs)
	taken := &hold{pin: pin}
	if len(missing) > 0 {
		pin.Release()
		return nil, &tree.MissingError{Digests: missing}
	}
	for _, d := range c.blobs {
		taken.bytes += d.Size()
	}
	h.bytes += taken.bytes
	for _, t := range c.trees {
		if err := h.use(t, t.Digest()); err != nil {
			h.drop(taken)
			return nil, err
		}
		taken.roots = append(taken.roots, t.Digest())
	}
	return taken, nil
}

// drop undoes take.
func (h *holds) drop(taken *hold) {
	taken.pin.Release()
	h.bytes -= taken.bytes
	for _, root := range taken.roots {
		h.unuse(root)
	}
	taken.roots = nil
}

// use adds a user to a directory, which is pinned with everything below when it has its first.
func (h *holds) use(t *tree.Tree, d digest.Digest) error {
	if known := h.directories[d]; known != nil {
		known.users++
		return nil
	}
	dir := t.Directory(d)
	ds := make([]digest.Digest, 0, 1+len(dir.Files))
	ds = append(ds, d)
	n := &held{users: 1, bytes: d.Size()}
	for i := range dir.Files {
		ds = append(ds, dir.Files[i].Digest)
		n.bytes += dir.Files[i].Digest.Size()
	}
	pin, missing := h.pins.Pin(ds)
	n.pin = pin
	h.directories[d] = n
	h.bytes += n.bytes
	if len(missing) > 0 {
		h.unuse(d)
		return &tree.MissingError{Digests: missing}
	}
	for i := range dir.Directories {
		child := dir.Directories[i].Digest
		if err := h.use(t, child); err != nil {
			h.unuse(d)
			return err
		}
		n.children = append(n.children, child)
	}
	return nil
}

// unuse takes a user from a directory and lets it go with its last.
func (h *holds) unuse(d digest.Digest) {
	n := h.directories[d]
	if n.users--; n.users > 0 {
		return
	}
	n.pin.Release()
	h.bytes -= n.bytes
	delete(h.directories, d)
	for _, child := range n.children {
		h.unuse(child)
	}
}
