package tree

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// FromTreeProto reads a Tree message whose digests were made by fn. Children may come in any order
// and repeatedly; one that no directory refers to, or one that is referred to and absent, makes the
// message invalid. A message without a root has an empty one. Errors are *InvalidError.
func FromTreeProto(fn digest.Function, data []byte, limits Limits) (*Tree, error) {
	limits = limits.withDefaults()
	if int64(len(data)) > limits.MaxDirectoryBytes {
		return nil, &InvalidError{"", fmt.Sprintf("the Tree message has %d bytes, at most %d are allowed", len(data), limits.MaxDirectoryBytes)}
	}
	t := &Tree{directories: map[digest.Digest]*Directory{}}
	if err := t.read(fn, data, limits); err != nil {
		return nil, err
	}
	if err := t.measure(limits); err != nil {
		return nil, err
	}
	for _, d := range t.order {
		if t.directories[d].totals.Nodes == 0 { // not met on the way from the root
			return nil, &InvalidError{"", "child " + d.String() + " of the Tree message is referred to by no directory"}
		}
	}
	return t, nil
}

// read decodes every directory of a Tree message.
func (t *Tree) read(fn digest.Function, data []byte, limits Limits) error {
	const (
		rootField  = 1
		childField = 2
	)
	var root []byte
	roots, nodes := 0, 1
	add := func(encoded []byte) (digest.Digest, error) {
		d := fn.Of(encoded)
		if t.directories[d] != nil {
			return d, nil
		}
		dir, err := Decode(fn, encoded)
		if err != nil {
			return d, below(d.Short(), err)
		}
		if nodes += dir.entries(); nodes > limits.MaxNodes {
			return d, &InvalidError{"", fmt.Sprintf("the tree has more than %d nodes", limits.MaxNodes)}
		}
		t.directories[d] = dir
		t.order = append(t.order, d)
		return d, nil
	}
	for len(data) > 0 {
		number, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return &InvalidError{"", "it is not a Tree message"}
		}
		size := protowire.ConsumeFieldValue(number, typ, data[n:])
		if size < 0 {
			return &InvalidError{"", "it is not a Tree message"}
		}
		value := data[n : n+size]
		data = data[n+size:]
		if typ != protowire.BytesType || number > childField {
			continue
		}
		value, _ = protowire.ConsumeBytes(value)
		if number == rootField {
			root = value
			roots++
		} else if _, err := add(value); err != nil {
			return err
		}
	}
	if roots > 1 {
		return &InvalidError{"", "the Tree message has two roots"}
	}
	d, err := add(root)
	if err != nil {
		return err
	}
	t.root = d
	at := slices.Index(t.order, d)
	t.order = slices.Insert(slices.Delete(t.order, at, at+1), 0, d)
	return nil
}

// TreeProto encodes the tree as a Tree message, and gives its digest made by the function of the
// root's. Each distinct directory is there once, the root first and parents before their children,
// as OutputDirectory.is_topologically_sorted asks.
func (t *Tree) TreeProto() ([]byte, digest.Digest) {
	const (
		rootTag  = 1<<3 | byte(protowire.BytesType)
		childTag = 2<<3 | byte(protowire.BytesType)
	)
	size := 0
	for _, dir := range t.directories {
		size += 1 + protowire.SizeBytes(len(dir.raw))
	}
	data := make([]byte, 0, size)
	tag := rootTag
	for _, dir := range t.topological() {
		data = append(data, tag)
		data = protowire.AppendString(data, dir.raw)
		tag = childTag
	}
	return data, t.root.Function().Of(data)
}

// topological lists every distinct directory once, parents before children: the reverse of the order
// in which a depth-first walk leaves them.
func (t *Tree) topological() []*Directory {
	order := make([]*Directory, 0, len(t.directories))
	seen := make(map[*Directory]bool, len(t.directories))
	var visit func(dir *Directory)
	visit = func(dir *Directory) {
		seen[dir] = true
		for i := len(dir.Directories) - 1; i >= 0; i-- {
			if child := t.directories[dir.Directories[i].Digest]; !seen[child] {
				visit(child)
			}
		}
		order = append(order, dir)
	}
	visit(t.Root())
	slices.Reverse(order)
	return order
}
