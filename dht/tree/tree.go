package tree

import (
	"fmt"
	"slices"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Tree is a complete, checked tree of directories. Nobody may change it; it may be shared.
type Tree struct {
	root        digest.Digest
	directories map[digest.Digest]*Directory
	order       []digest.Digest // every distinct directory once, the root first
}

// Digest is the root directory's.
func (t *Tree) Digest() digest.Digest { return t.root }

// Root is the root directory.
func (t *Tree) Root() *Directory { return t.directories[t.root] }

// Directory gives the directory with digest d, nil if the tree does not have it.
func (t *Tree) Directory(d digest.Digest) *Directory { return t.directories[d] }

// Directories lists the distinct directories, the root first.
func (t *Tree) Directories() []digest.Digest { return slices.Clone(t.order) }

// Files lists the distinct files' digests in a fixed order.
func (t *Tree) Files() []digest.Digest {
	n := 0
	for _, d := range t.order {
		n += len(t.directories[d].Files)
	}
	files := make([]digest.Digest, 0, n)
	seen := make(map[digest.Digest]struct{}, n)
	for _, d := range t.order {
		dir := t.directories[d]
		for i := range dir.Files {
			f := dir.Files[i].Digest
			if _, found := seen[f]; !found {
				seen[f] = struct{}{}
				files = append(files, f)
			}
		}
	}
	return files
}

// Walk calls f for every directory of the expanded tree, parents before children and siblings in the
// order they have in their directory. The root's path is "", others are relative to it. Limits bound
// how often f is called.
func (t *Tree) Walk(f func(path string, dir *Directory)) { t.walk("", t.Root(), f) }

func (t *Tree) walk(at string, dir *Directory, f func(string, *Directory)) {
	f(at, dir)
	for i := range dir.Directories {
		sub := &dir.Directories[i]
		t.walk(join(at, sub.Name), t.directories[sub.Digest], f)
	}
}

// measure computes the totals of every directory and compares the expanded tree with limits. It
// finds directories that are referred to but absent, and cycles, which only a Getter that lies can
// produce.
func (t *Tree) measure(limits Limits) error {
	m := measurer{tree: t, limits: limits, active: map[*Directory]bool{}}
	return m.directory("", t.Root(), 1)
}

type measurer struct {
	tree   *Tree
	limits Limits
	active map[*Directory]bool // on the way from the root to here
}

// directory computes the totals of dir, which is at path p and on level depth. A directory met again
// costs nothing: its totals are known.
func (m *measurer) directory(p string, dir *Directory, depth int) error {
	if depth > m.limits.MaxDepth {
		return &InvalidError{p, fmt.Sprintf("it is more than %d directories deep", m.limits.MaxDepth)}
	}
	m.active[dir] = true
	defer delete(m.active, dir)
	total := Totals{Nodes: 1 + int64(len(dir.Files)+len(dir.Symlinks)), Files: int64(len(dir.Files)), Depth: 1}
	for i := range dir.Files {
		total.Bytes = sum(total.Bytes, dir.Files[i].Digest.Size())
	}
	for i := range dir.Directories {
		sub := &dir.Directories[i]
		child := m.tree.directories[sub.Digest]
		switch {
		case child == nil:
			return &InvalidError{join(p, sub.Name), "directory " + sub.Digest.String() + " is not part of the tree"}
		case m.active[child]:
			return &InvalidError{join(p, sub.Name), "it contains itself"}
		case child.totals.Nodes == 0:
			if err := m.directory(join(p, sub.Name), child, depth+1); err != nil {
				return err
			}
		}
		total.Nodes = sum(total.Nodes, child.totals.Nodes)
		total.Files = sum(total.Files, child.totals.Files)
		total.Bytes = sum(total.Bytes, child.totals.Bytes)
		total.Depth = max(total.Depth, child.totals.Depth+1)
	}
	if total.Nodes > int64(m.limits.MaxNodes) {
		return &InvalidError{p, fmt.Sprintf("it has more than %d nodes", m.limits.MaxNodes)}
	}
	if depth+total.Depth-1 > m.limits.MaxDepth {
		return &InvalidError{p, fmt.Sprintf("the tree is more than %d directories deep", m.limits.MaxDepth)}
	}
	dir.totals = total
	return nil
}

// join puts name below the directory at path. It does not clean: name may be what an error is about.
func join(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "/" + name
}
