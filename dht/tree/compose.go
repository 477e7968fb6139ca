package tree

import (
	"fmt"
	"maps"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Under gives the tree whose root holds nothing but t, as the directory name. Errors are *InvalidError.
func (t *Tree) Under(name string) (*Tree, error) {
	c := composer{fn: t.root.Function(), made: maps.Clone(t.directories)}
	root, err := c.add(&Directory{Directories: []Subdirectory{{Name: name, Digest: t.root}}})
	if err != nil {
		return nil, err
	}
	return treeOf(root, c.made, DefaultLimits())
}

// Merge gives the tree that has everything of over, and of below what over does not hide: directories of
// one name are merged, of all else of one name over's is taken. The properties of a merged directory are
// over's, unless it has none. Both trees must have digests of one function. Errors are *InvalidError.
func Merge(over, below *Tree) (*Tree, error) {
	if over.root.Function() != below.root.Function() {
		return nil, &InvalidError{"", "the trees to merge have digests of two functions"}
	}
	c := composer{fn: over.root.Function(), made: maps.Clone(over.directories), merged: map[[2]digest.Digest]digest.Digest{}}
	maps.Copy(c.made, below.directories)
	root, err := c.merge(over.root, below.root)
	if err != nil {
		return nil, err
	}
	return treeOf(root, c.made, DefaultLimits())
}

// composer makes directories beside those of the trees it began with.
type composer struct {
	fn     digest.Function
	made   map[digest.Digest]*Directory
	merged map[[2]digest.Digest]digest.Digest
}

func (c *composer) add(d *Directory) (digest.Digest, error) {
	data, err := Encode(d)
	if err != nil {
		return digest.Digest{}, err
	}
	id := c.fn.Of(data)
	if c.made[id] == nil {
		if c.made[id], err = Decode(c.fn, data); err != nil {
			return digest.Digest{}, err
		}
	}
	return id, nil
}

// merge gives the directory that over and below are together; each pair is merged once.
func (c *composer) merge(over, below digest.Digest) (digest.Digest, error) {
	pair := [2]digest.Digest{over, below}
	if over == below {
		return over, nil
	}
	if known, found := c.merged[pair]; found {
		return known, nil
	}
	top, bottom := c.made[over], c.made[below]
	names := make(map[string]bool, top.entries())
	subs := make(map[string]digest.Digest, len(top.Directories))
	d := &Directory{Properties: top.Properties}
	if d.Properties == nil {
		d.Properties = bottom.Properties
	}
	for _, f := range top.Files {
		names[f.Name] = true
	}
	for _, s := range top.Symlinks {
		names[s.Name] = true
	}
	for _, s := range top.Directories {
		names[s.Name], subs[s.Name] = true, s.Digest
	}
	d.Files, d.Symlinks = append(d.Files, top.Files...), append(d.Symlinks, top.Symlinks...)
	for _, f := range bottom.Files {
		if !names[f.Name] {
			d.Files = append(d.Files, f)
		}
	}
	for _, s := range bottom.Symlinks {
		if !names[s.Name] {
			d.Symlinks = append(d.Symlinks, s)
		}
	}
	for _, s := range bottom.Directories {
		mine, both := subs[s.Name]
		switch {
		case both:
			sum, err := c.merge(mine, s.Digest)
			if err != nil {
				return digest.Digest{}, fmt.Errorf("merge %q: %w", s.Name, err)
			}
			subs[s.Name] = sum
		case !names[s.Name]:
			d.Directories = append(d.Directories, s)
		}
	}
	for _, s := range top.Directories {
		d.Directories = append(d.Directories, Subdirectory{Name: s.Name, Digest: subs[s.Name]})
	}
	sum, err := c.add(d)
	if err == nil {
		c.merged[pair] = sum
	}
	return sum, err
}
