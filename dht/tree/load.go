package tree

import (
	"context"
	"fmt"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Limits bound what is accepted from a client. A field that is 0 or negative means the default.
type Limits struct {
	MaxDepth          int   // levels of directories, the root included
	MaxNodes          int   // files, symlinks and directories of the expanded tree, the root included
	MaxDirectoryBytes int64 // of all distinct Directory messages together
}

// DefaultLimits fit the largest input roots in use with room to spare.
func DefaultLimits() Limits {
	return Limits{MaxDepth: 256, MaxNodes: 1 << 20, MaxDirectoryBytes: 128 << 20}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.MaxDepth <= 0 {
		l.MaxDepth = d.MaxDepth
	}
	if l.MaxNodes <= 0 {
		l.MaxNodes = d.MaxNodes
	}
	if l.MaxDirectoryBytes <= 0 {
		l.MaxDirectoryBytes = d.MaxDirectoryBytes
	}
	return l
}

// Getter gives blobs from a store; the element of a blob it does not have is nil. It must have
// verified that content matches its digest.
type Getter interface {
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
}

// One batch asks for at most so many directories and bytes.
const (
	batchCount = 4096
	batchBytes = 8 << 20
)

// Load reads the tree below the Directory with digest root. Errors: *MissingError with every
// directory found missing, *InvalidError, or whatever the Getter returned.
func Load(ctx context.Context, blobs Getter, root digest.Digest, limits Limits) (*Tree, error) {
	l := loader{
		limits: limits.withDefaults(),
		tree:   &Tree{root: root, directories: map[digest.Digest]*Directory{}},
	}
	if err := l.meet(root, -1, ""); err != nil {
		return nil, err
	}
	for from, depth := 0, 1; from < len(l.met); depth++ {
		if depth > l.limits.MaxDepth {
			return nil, &InvalidError{l.path(from), fmt.Sprintf("it is more than %d directories deep", l.limits.MaxDepth)}
		}
		end := len(l.met)
		for from < end {
			n := l.batch(from, end)
			if err := l.fetch(ctx, blobs, from, from+n); err != nil {
				return nil, err
			}
			from += n
		}
	}
	if len(l.missing) > 0 {
		return nil, &MissingError{l.missing}
	}
	if err := l.tree.measure(l.limits); err != nil {
		return nil, err
	}
	return l.tree, nil
}

// loader is one Load.
type loader struct {
	limits  Limits
	tree    *Tree
	met     []meeting // distinct directories by level, those of the level being read last
	missing []digest.Digest
	nodes   int   // of distinct directories
	bytes   int64 // of distinct directories
}

// meeting is a directory and where it was met first.
type meeting struct {
	digest digest.Digest
	parent int // in loader.met, -1 for the root
	name   string
}

// path names met[i] for a message.
func (l *loader) path(i int) string {
	p := ""
	for ; i >= 0; i = l.met[i].parent {
		p = join(l.met[i].name, p)
	}
	return p
}

// meet notes a directory that is referred to, unless it is known.
func (l *loader) meet(d digest.Digest, parent int, name string) error {
	if _, known := l.tree.directories[d]; known {
		return nil
	}
	l.tree.directories[d] = nil
	l.met = append(l.met, meeting{d, parent, name})
	l.bytes = sum(l.bytes, d.Size())
	if l.bytes > l.limits.MaxDirectoryBytes {
		return &InvalidError{l.path(len(l.met) - 1), fmt.Sprintf("directories have more than %d bytes", l.limits.MaxDirectoryBytes)}
	}
	return nil
}

// batch tells how many of met[from:end] to ask for at once, at least one.
func (l *loader) batch(from, end int) int {
	n, bytes := 0, int64(0)
	for from+n < end && n < batchCount {
		bytes += l.met[from+n].digest.Size()
		if n > 0 && bytes > batchBytes {
			break
		}
		n++
	}
	return n
}

// fetch reads met[from:end] and notes what they refer to.
func (l *loader) fetch(ctx context.Context, blobs Getter, from, end int) error {
	ds := make([]digest.Digest, end-from)
	for i := range ds {
		ds[i] = l.met[from+i].digest
	}
	contents, err := blobs.GetBatch(ctx, ds)
	if err != nil {
		return fmt.Errorf("load tree %s: %w", l.tree.root.Short(), err)
	}
	if len(contents) != len(ds) {
		return fmt.Errorf("load tree %s: asked for %d blobs, got %d", l.tree.root.Short(), len(ds), len(contents))
	}
	for i, content := range contents {
		if content == nil && !ds[i].IsEmpty() {
			l.missing = append(l.missing, ds[i])
			continue
		}
		if int64(len(content)) != ds[i].Size() {
			return fmt.Errorf("load tree %s: blob %s came with %d bytes", l.tree.root.Short(), ds[i], len(content))
		}
		if err := l.add(from+i, content); err != nil {
			return err
		}
	}
	return nil
}

// add decodes the content of met[at].
func (l *loader) add(at int, content []byte) error {
	d := l.met[at].digest
	dir, err := Decode(d.Function(), content)
	if err != nil {
		return below(l.path(at), err)
	}
	l.nodes += dir.entries()
	if l.nodes >= l.limits.MaxNodes {
		return &InvalidError{l.path(at), fmt.Sprintf("the tree has more than %d nodes", l.limits.MaxNodes)}
	}
	l.tree.directories[d] = dir
	l.tree.order = append(l.tree.order, d)
	for i := range dir.Directories {
		if err := l.meet(dir.Directories[i].Digest, at, dir.Directories[i].Name); err != nil {
			return err
		}
	}
	return nil
}

// below puts the path of an InvalidError, which is relative to a directory at p, below p.
func below(p string, err error) error {
	if invalid, ok := err.(*InvalidError); ok {
		return &InvalidError{join(p, invalid.Path), invalid.Reason}
	}
	return err
}
