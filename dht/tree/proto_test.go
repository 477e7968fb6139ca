package tree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// example has a directory that is shared and met on two levels.
func example(t testing.TB) *Tree {
	t.Helper()
	s := newStore(digest.SHA256)
	leaf := s.message(t, &repb.Directory{Files: []*repb.FileNode{fileNode("f", "x")}})
	mid := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("leaf", leaf)}})
	root := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("a", leaf), directoryNode("b", mid), directoryNode("c", leaf)}})
	tr, err := Load(t.Context(), s, root, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTreeProto(t *testing.T) {
	tr := example(t)
	data, d := tr.TreeProto()
	if d != digest.SHA256.Of(data) {
		t.Error("the digest is not the message's")
	}
	var m repb.Tree
	if err := proto.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if got := digest.SHA256.Of(encoded(t, m.Root)); got != tr.Digest() {
		t.Errorf("root %s, want %s", got, tr.Digest())
	}
	if len(m.Children) != 2 {
		t.Fatalf("%d children, want each distinct one once", len(m.Children))
	}
	// mid refers to leaf, so it must come first though leaf was met first.
	if len(m.Children[0].Directories) != 1 || len(m.Children[1].Files) != 1 {
		t.Error("a child stands before its parent")
	}
	back, err := FromTreeProto(digest.SHA256, data, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest() != tr.Digest() || listing(back) != listing(tr) || back.Root().Totals() != tr.Root().Totals() {
		t.Errorf("came back as\n%s", listing(back))
	}
	if again, _ := back.TreeProto(); !bytes.Equal(again, data) {
		t.Error("encoding is not stable")
	}
}

func TestTreeProtoKeepsForeignEncoding(t *testing.T) {
	// Fields in an order of their own: the digest the client knows is that of these bytes.
	odd := append([]byte{0x1a, 6, 0x0a, 1, 'l', 0x12, 1, 't'}, encoded(t, &repb.Directory{Files: []*repb.FileNode{fileNode("f", "x")}})...)
	s := newStore(digest.SHA256)
	root := s.put(append(encoded(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("d", s.put(odd))}}), 0x7a, 1, 'u'))
	tr, err := Load(t.Context(), s, root, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	data, _ := tr.TreeProto()
	back, err := FromTreeProto(digest.SHA256, data, Limits{})
	if err != nil || back.Digest() != root {
		t.Errorf("%v, %v", back, err)
	}
}

func TestFromTreeProtoAnyOrder(t *testing.T) {
	var m repb.Tree
	data, _ := example(t).TreeProto()
	if err := proto.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(m.Children)
	m.Children = append(m.Children, m.Children[0])
	tr, err := FromTreeProto(digest.SHA256, encoded(t, &m), Limits{})
	if err != nil || listing(tr) != listing(example(t)) {
		t.Errorf("%v, %v", tr, err)
	}
	if got, _ := tr.TreeProto(); !bytes.Equal(got, data) {
		t.Error("the same tree encodes differently")
	}
	// Children before the root, and a field nobody knows.
	var back []byte
	for _, c := range m.Children {
		back = protowire.AppendBytes(append(back, 0x12), encoded(t, c))
	}
	back = append(protowire.AppendBytes(append(back, 0x0a), encoded(t, m.Root)), 0x28, 1)
	if tr, err := FromTreeProto(digest.SHA256, back, Limits{}); err != nil || tr.Directories()[0] != tr.Digest() {
		t.Errorf("root last: %v, %v", tr, err)
	}
}

func TestFromTreeProtoOfNothing(t *testing.T) {
	for _, data := range [][]byte{nil, {0x0a, 0}} {
		tr, err := FromTreeProto(digest.SHA256, data, Limits{})
		if err != nil || !tr.Digest().IsEmpty() || len(tr.Files()) != 0 {
			t.Errorf("%x: %v, %v", data, tr, err)
		}
	}
}

func TestFromTreeProtoRefuses(t *testing.T) {
	leaf := &repb.Directory{Files: []*repb.FileNode{fileNode("f", "x")}}
	toLeaf := &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("leaf", digest.SHA256.Of(encoded(t, leaf)))}}
	bad := &repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "..", Target: "x"}}}
	good := encoded(t, &repb.Tree{Root: toLeaf, Children: []*repb.Directory{leaf}})
	for _, c := range []struct {
		name   string
		data   []byte
		limits Limits
	}{
		{"child nobody refers to", encoded(t, &repb.Tree{Root: &repb.Directory{}, Children: []*repb.Directory{leaf}}), Limits{}},
		{"children that only refer to each other", encoded(t, &repb.Tree{Root: &repb.Directory{}, Children: []*repb.Directory{toLeaf, leaf}}), Limits{}},
		{"absent child", encoded(t, &repb.Tree{Root: toLeaf}), Limits{}},
		{"two roots", append(encoded(t, &repb.Tree{Root: &repb.Directory{}}), encoded(t, &repb.Tree{Root: &repb.Directory{}})...), Limits{}},
		{"unsafe root", encoded(t, &repb.Tree{Root: bad}), Limits{}},
		{"unsafe child", encoded(t, &repb.Tree{Root: toLeaf, Children: []*repb.Directory{leaf, bad}}), Limits{}},
		{"cut", good[:len(good)-1], Limits{}},
		{"cut tag", []byte{0x80}, Limits{}},
		{"too deep", good, Limits{MaxDepth: 1}},
		{"too many nodes", good, Limits{MaxNodes: 2}},
		{"too many bytes", good, Limits{MaxDirectoryBytes: int64(len(good)) - 1}},
	} {
		if _, err := FromTreeProto(digest.SHA256, c.data, c.limits); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := FromTreeProto(digest.SHA256, good, Limits{MaxDepth: 2, MaxNodes: 3, MaxDirectoryBytes: int64(len(good))}); err != nil {
		t.Errorf("exactly at the limits: %v", err)
	}
}

func TestFromTreeProtoBomb(t *testing.T) {
	m := &repb.Tree{}
	d := &repb.Directory{}
	for range 64 {
		m.Children = append(m.Children, d)
		id := digest.SHA256.Of(encoded(t, d))
		d = &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("a", id), directoryNode("b", id)}}
	}
	m.Root = d
	if _, err := FromTreeProto(digest.SHA256, encoded(t, m), Limits{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("2^64 directories: %v", err)
	}
}

func TestBuilder(t *testing.T) {
	props := &repb.NodeProperties{UnixMode: wrapperspb.UInt32(0o700)}
	b := NewBuilder(digest.SHA256)
	leaf := &Directory{
		Files:      []File{{Name: "z", Digest: someDigest, Executable: true, Properties: props}, {Name: "a", Digest: digest.SHA256.Empty()}},
		Symlinks:   []Symlink{{Name: "m", Target: "z", Properties: props}, {Name: "l", Target: "/abs"}},
		Properties: props,
	}
	leafID, err := b.Add(leaf)
	if err != nil {
		t.Fatal(err)
	}
	want := encoded(t, &repb.Directory{
		Files: []*repb.FileNode{
			{Name: "a", Digest: digest.SHA256.Empty().Proto()}, {Name: "z", Digest: someDigest.Proto(), IsExecutable: true, NodeProperties: props},
		},
		Symlinks:       []*repb.SymlinkNode{{Name: "l", Target: "/abs"}, {Name: "m", Target: "z", NodeProperties: props}},
		NodeProperties: props,
	})
	if leafID != digest.SHA256.Of(want) {
		t.Error("not the canonical encoding")
	}
	if leaf.Files[0].Name != "z" {
		t.Error("Add sorted the caller's list")
	}
	root, err := b.Add(&Directory{Directories: []Subdirectory{{"two", leafID}, {"one", leafID}}})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Add(leaf); err != nil || again != leafID {
		t.Errorf("%v, %v", again, err)
	}
	s := newStore(digest.SHA256)
	var order []digest.Digest
	for d, data := range b.Blobs {
		if s.put(data) != d {
			t.Errorf("blob %s has another digest", d)
		}
		order = append(order, d)
	}
	if !slices.Equal(order, []digest.Digest{leafID, root}) {
		t.Errorf("order %v", order)
	}
	built, err := b.Tree(root, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(t.Context(), s, root, Limits{})
	if err != nil || listing(loaded) != listing(built) || built.Root().Totals() != loaded.Root().Totals() {
		t.Errorf("%v, %v", loaded, err)
	}
	fromBuilt, _ := built.TreeProto()
	if fromLoaded, _ := loaded.TreeProto(); !bytes.Equal(fromBuilt, fromLoaded) {
		t.Error("one tree, two Tree messages")
	}
}

func TestBuilderRefuses(t *testing.T) {
	b := NewBuilder(digest.SHA256)
	for name, d := range map[string]*Directory{
		"unsafe name":    {Files: []File{{Name: "a/b", Digest: someDigest}}},
		"name twice":     {Files: []File{{Name: "a", Digest: someDigest}}, Symlinks: []Symlink{{Name: "a", Target: "b"}}},
		"no target":      {Symlinks: []Symlink{{Name: "a"}}},
		"bad properties": {Properties: &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "\xff"}}}},
	} {
		if _, err := b.Add(d); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	lost, err := b.Add(&Directory{Directories: []Subdirectory{{"x", someDigest}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Tree(lost, Limits{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("child not added: %v", err)
	}
	if _, err := b.Tree(someDigest, Limits{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("root not added: %v", err)
	}
	for range b.Blobs {
		break // stopping early is allowed
	}
}

func FuzzFromTreeProto(f *testing.F) {
	data, _ := example(f).TreeProto()
	f.Add(data)
	f.Add([]byte{0x0a, 0, 0x12, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		tr, err := FromTreeProto(digest.SHA256, data, Limits{MaxNodes: 1000, MaxDepth: 20})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v does not wrap ErrInvalid", err)
			}
			return
		}
		nodes := int64(0)
		tr.Walk(func(_ string, dir *Directory) { nodes += 1 + int64(len(dir.Files)+len(dir.Symlinks)) })
		if want := tr.Root().Totals().Nodes; nodes != want || want > 1000 {
			t.Fatalf("%d nodes walked, totals say %d", nodes, want)
		}
		again, _ := tr.TreeProto()
		back, err := FromTreeProto(digest.SHA256, again, Limits{})
		if err != nil || listing(back) != listing(tr) {
			t.Fatalf("encoded again: %v", err)
		}
	})
}

func BenchmarkTreeProto10000(b *testing.B) {
	s := newStore(digest.SHA256)
	tr, err := Load(b.Context(), s, large(b, s), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	data, _ := tr.TreeProto()
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			tr.TreeProto()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := FromTreeProto(digest.SHA256, data, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated code for comparison", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m repb.Tree
			if err := proto.Unmarshal(data, &m); err != nil {
				b.Fatal(fmt.Errorf("decode: %w", err))
			}
		}
	})
}
