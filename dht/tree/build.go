package tree

import (
	"cmp"
	"fmt"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Builder makes Directory messages bottom up. Not safe for concurrent use.
type Builder struct {
	fn          digest.Function
	directories map[digest.Digest]*Directory
	order       []digest.Digest
}

// NewBuilder starts with no directories; digests are made by fn.
func NewBuilder(fn digest.Function) *Builder {
	return &Builder{fn: fn, directories: map[digest.Digest]*Directory{}}
}

// Add encodes d canonically (sorted by name) and returns its digest. The lists of d are not changed.
// Equal directories are kept once. Errors are *InvalidError: everything Decode refuses.
func (b *Builder) Add(d *Directory) (digest.Digest, error) {
	data, err := Encode(d)
	if err != nil {
		return digest.Digest{}, err
	}
	id := b.fn.Of(data)
	if b.directories[id] != nil {
		return id, nil
	}
	checked, err := Decode(b.fn, data)
	if err != nil {
		return digest.Digest{}, err
	}
	b.directories[id] = checked
	b.order = append(b.order, id)
	return id, nil
}

// Blobs yields every directory with its encoded message, children before parents: the order in
// which to store them.
func (b *Builder) Blobs(yield func(digest.Digest, []byte) bool) {
	for _, d := range b.order {
		if !yield(d, b.directories[d].Encoded()) {
			return
		}
	}
}

// Tree gives the tree below root, which was added with everything below it. Errors are *InvalidError.
func (b *Builder) Tree(root digest.Digest, limits Limits) (*Tree, error) {
	if b.directories[root] == nil {
		return nil, &InvalidError{"", "directory " + root.String() + " was not added"}
	}
	return treeOf(root, b.directories, limits.withDefaults())
}

// treeOf gives the tree of root, which is one of made, and of those of made that it leads to.
func treeOf(root digest.Digest, made map[digest.Digest]*Directory, limits Limits) (*Tree, error) {
	t := &Tree{root: root, directories: make(map[digest.Digest]*Directory, len(made))}
	var reach func(d digest.Digest)
	reach = func(d digest.Digest) {
		dir := made[d]
		if dir == nil || t.directories[d] != nil {
			return // measure reports what is absent
		}
		own := *dir // a Tree writes the totals of its directories
		own.totals = Totals{}
		t.directories[d] = &own
		t.order = append(t.order, d)
		for i := range dir.Directories {
			reach(dir.Directories[i].Digest)
		}
	}
	reach(root)
	if err := t.measure(limits); err != nil {
		return nil, err
	}
	return t, nil
}

// Encode gives the canonical encoding of d: nodes sorted by name, fields by number. It does not check
// names; Decode does. Errors: properties that cannot be encoded.
func Encode(d *Directory) ([]byte, error) {
	var e encoder
	byName := func(a, b string) int { return cmp.Compare(a, b) }
	for _, f := range sortedBy(d.Files, func(a, b File) int { return byName(a.Name, b.Name) }) {
		e.node(f.Name)
		e.digest(f.Digest)
		if f.Executable {
			e.message = protowire.AppendVarint(append(e.message, byte(tag4Varint)), 1)
		}
		e.properties(byte(tag6Bytes), f.Properties)
		e.end(byte(tag1Bytes))
	}
	for _, s := range sortedBy(d.Directories, func(a, b Subdirectory) int { return byName(a.Name, b.Name) }) {
		e.node(s.Name)
		e.digest(s.Digest)
		e.end(byte(tag2Bytes))
	}
	for _, s := range sortedBy(d.Symlinks, func(a, b Symlink) int { return byName(a.Name, b.Name) }) {
		e.node(s.Name)
		if s.Target != "" {
			e.message = protowire.AppendString(append(e.message, byte(tag2Bytes)), s.Target)
		}
		e.properties(byte(tag4Bytes), s.Properties)
		e.end(byte(tag3Bytes))
	}
	e.message = e.message[:0]
	e.properties(byte(tag5Bytes), d.Properties)
	return append(e.out, e.message...), e.err
}

// sortedBy gives list in order, the same slice if it is already.
func sortedBy[T any](list []T, compare func(a, b T) int) []T {
	if slices.IsSortedFunc(list, compare) {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, compare)
	return list
}

// encoder appends nodes to a Directory message.
type encoder struct {
	out     []byte
	message []byte // the node under construction
	err     error
}

func (e *encoder) node(name string) {
	e.message = e.message[:0]
	if name != "" {
		e.message = protowire.AppendString(append(e.message, byte(tag1Bytes)), name)
	}
}

func (e *encoder) digest(d digest.Digest) {
	size := 2 + digest.HexSize
	if d.Size() > 0 {
		size += 1 + protowire.SizeVarint(uint64(d.Size()))
	}
	e.message = protowire.AppendVarint(append(e.message, byte(tag2Bytes)), uint64(size))
	e.message = protowire.AppendString(append(e.message, byte(tag1Bytes)), d.Hex())
	if d.Size() > 0 {
		e.message = protowire.AppendVarint(append(e.message, byte(tag2Varint)), uint64(d.Size()))
	}
}

func (e *encoder) properties(tag byte, p *repb.NodeProperties) {
	if p == nil {
		return
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil && e.err == nil {
		e.err = &InvalidError{"", fmt.Sprintf("node properties cannot be encoded: %v", err)}
	}
	e.message = protowire.AppendBytes(append(e.message, tag), data)
}

// end makes the node under construction a field of the Directory.
func (e *encoder) end(tag byte) {
	e.out = protowire.AppendBytes(append(e.out, tag), e.message)
}
