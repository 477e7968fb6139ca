package image

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// maxLinks bounds the symbolic links followed on the way to one entry, as the kernel does.
const maxLinks = 40

type kind uint8

const (
	isDir kind = iota
	isFile
	isLink
	isSkipped // hides what lower layers have, and is not part of the root itself
)

// node is one name of the root under construction. layer tells which layer put it there: marks of
// removal in a layer concern those below it only.
type node struct {
	kind       kind
	layer      int
	children   map[string]*node // of a directory
	digest     digest.Digest    // of a file
	executable bool
	target     string // of a link
}

func newDir(layer int) *node { return &node{kind: isDir, layer: layer, children: map[string]*node{}} }

// root is the tree that layers are applied to, one after the other.
type root struct {
	top   *node
	layer int // being applied
	nodes int // ever made, names that were replaced included
	limit int // for nodes
}

// made counts a new node against the limit.
func (r *root) made() error {
	if r.nodes++; r.nodes > r.limit {
		return fmt.Errorf("%w: it has more than %d entries", ErrTooLarge, r.limit)
	}
	return nil
}

// elements splits an archive's name, and refuses one that no tree may contain. The root itself has none.
func elements(name string) ([]string, error) {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
			continue
		case "..":
			return nil, fmt.Errorf("%w: entry %q leads out of the image", ErrCorrupt, clip(name))
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("%w: entry %q is more than %d directories deep", ErrTooLarge, clip(name), maxDepth)
	}
	return parts, nil
}

// maxDepth of an image's directories leaves room below what trees may have.
const maxDepth = 200

// clip shortens a hostile name for a message.
func clip(name string) string {
	if len(name) > 200 {
		return name[:200] + "..."
	}
	return name
}

// directory walks to a directory and makes what is missing of it. Symbolic links on the way are
// followed inside the root, whose parent is itself; what else is in the way is replaced.
func (r *root) directory(parts []string) (*node, error) {
	stack := []*node{r.top}
	for links := 0; len(parts) > 0; {
		name := parts[0]
		parts = parts[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		at := stack[len(stack)-1]
		child := at.children[name]
		if child != nil && child.kind == isLink {
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%w: %q is reached through too many symbolic links", ErrCorrupt, clip(name))
			}
			if path.IsAbs(child.target) {
				stack = stack[:1]
			}
			parts = append(strings.Split(child.target, "/"), parts...)
			continue
		}
		if child == nil || child.kind != isDir {
			if err := r.made(); err != nil {
				return nil, err
			}
			child = newDir(r.layer)
			at.children[name] = child
		}
		if stack = append(stack, child); len(stack) > maxDepth {
			return nil, fmt.Errorf("%w: it is more than %d directories deep", ErrTooLarge, maxDepth)
		}
	}
	return stack[len(stack)-1], nil
}

// find looks up an existing entry for a hard link; its last component is not followed.
func (r *root) find(parts []string) *node {
	if len(parts) == 0 {
		return r.top
	}
	stack := []*node{r.top}
	for links := 0; ; {
		name := parts[0]
		parts = parts[1:]
		at := stack[len(stack)-1]
		var child *node
		switch name {
		case "", ".":
			child = at
			stack = stack[:len(stack)-1]
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			child = stack[len(stack)-1]
			stack = stack[:len(stack)-1]
		default:
			child = at.children[name]
		}
		if child == nil || len(parts) == 0 {
			return child
		}
		switch child.kind {
		case isDir:
			stack = append(stack, child)
		case isLink:
			if links++; links > maxLinks {
				return nil
			}
			if path.IsAbs(child.target) {
				stack = stack[:1]
			}
			parts = append(strings.Split(child.target, "/"), parts...)
		default:
			return nil
		}
	}
}

// reach looks up what a mark is in: the last component is followed, too.
func (r *root) reach(parts []string) *node { return r.find(append(slices.Clone(parts), ".")) }

// set puts n at a name. A directory joins one that is there; everything else replaces.
func (r *root) set(parts []string, n *node) error {
	if len(parts) == 0 {
		return nil // the root is a directory in any case
	}
	parent, err := r.directory(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	if old := parent.children[name]; old != nil && old.kind == isDir && n.kind == isDir {
		old.layer = r.layer
		return nil
	}
	if err := r.made(); err != nil {
		return err
	}
	parent.children[name] = n
	return nil
}

// remove applies the mark of a removed name: what lower layers put there goes.
func (r *root) remove(parts []string) {
	parent := r.reach(parts[:len(parts)-1])
	if parent == nil || parent.kind != isDir {
		return
	}
	name := parts[len(parts)-1]
	if child := parent.children[name]; child != nil && !r.keep(child) {
		delete(parent.children, name)
	}
}

// hide applies the mark of a replaced directory: what lower layers put into it goes.
func (r *root) hide(parts []string) {
	dir := r.reach(parts)
	if dir == nil || dir.kind != isDir {
		return
	}
	maps.DeleteFunc(dir.children, func(_ string, child *node) bool { return !r.keep(child) })
}

// keep takes from n what lower layers put there, and reports whether anything of this layer is left.
func (r *root) keep(n *node) bool {
	if n.kind != isDir {
		return n.layer == r.layer
	}
	maps.DeleteFunc(n.children, func(_ string, child *node) bool { return !r.keep(child) })
	return n.layer == r.layer || len(n.children) > 0
}

// build makes the Directory messages below n, children first, and returns n's digest.
func (n *node) build(b *tree.Builder, at string) (digest.Digest, error) {
	d := &tree.Directory{}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child := n.children[name]
		switch child.kind {
		case isDir:
			sub, err := child.build(b, path.Join(at, name))
			if err != nil {
				return digest.Digest{}, err
			}
			d.Directories = append(d.Directories, tree.Subdirectory{Name: name, Digest: sub})
		case isFile:
			d.Files = append(d.Files, tree.File{Name: name, Digest: child.digest, Executable: child.executable})
		case isLink:
			d.Symlinks = append(d.Symlinks, tree.Symlink{Name: name, Target: child.target})
		}
	}
	sum, err := b.Add(d)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("%w: directory /%s: %w", ErrCorrupt, clip(at), err)
	}
	return sum, nil
}
