package tree

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/buildmesh/buildmesh/dht/digest"
)

var someDigest = digest.SHA256.Of([]byte("x"))

func TestDecode(t *testing.T) {
	props := &repb.NodeProperties{
		Mtime: &timestamppb.Timestamp{Seconds: 1321009871}, UnixMode: wrapperspb.UInt32(0o755),
		Properties: []*repb.NodeProperty{{Name: "SubtreeReadOnly", Value: "true"}, {Name: "nobody knows it"}},
	}
	m := &repb.Directory{
		Files: []*repb.FileNode{
			{Name: "tool", Digest: someDigest.Proto(), IsExecutable: true, NodeProperties: props},
			{Name: "data", Digest: digest.SHA256.Empty().Proto(), NodeProperties: props},
		},
		Directories:    []*repb.DirectoryNode{directoryNode("src", someDigest)},
		Symlinks:       []*repb.SymlinkNode{{Name: "lib", Target: "/usr/lib", NodeProperties: props}},
		NodeProperties: props,
	}
	data := encoded(t, m)
	dir, err := Decode(digest.SHA256, data)
	if err != nil {
		t.Fatal(err)
	}
	if len(dir.Files) != 2 || len(dir.Directories) != 1 || len(dir.Symlinks) != 1 {
		t.Fatalf("decoded %+v", dir)
	}
	if f := dir.Files[0]; f.Name != "tool" || f.Digest != someDigest || !f.Executable || !proto.Equal(f.Properties, props) {
		t.Errorf("file %+v", f)
	}
	if f := dir.Files[1]; f.Name != "data" || !f.Digest.IsEmpty() || f.Executable {
		t.Errorf("file %+v", f)
	}
	if s := dir.Directories[0]; s.Name != "src" || s.Digest != someDigest {
		t.Errorf("subdirectory %+v", s)
	}
	if s := dir.Symlinks[0]; s.Name != "lib" || s.Target != "/usr/lib" || !proto.Equal(s.Properties, props) {
		t.Errorf("symlink %+v", s)
	}
	if !proto.Equal(dir.Properties, props) {
		t.Errorf("properties %v", dir.Properties)
	}
	data[0] = 0xff // the caller's again
	if digest.SHA256.Of(dir.Encoded()) != digest.SHA256.Of(encoded(t, m)) {
		t.Error("the encoded message is not what came")
	}
}

func TestDecodeOfNothing(t *testing.T) {
	dir, err := Decode(digest.BLAKE3, nil)
	if err != nil || dir.entries() != 0 || dir.Properties != nil {
		t.Errorf("%+v, %v", dir, err)
	}
}

func TestDecodeFunction(t *testing.T) {
	empty := digest.BLAKE3.Empty()
	data := encoded(t, &repb.Directory{Files: []*repb.FileNode{{Name: "x", Digest: empty.Proto()}}})
	dir, err := Decode(digest.BLAKE3, data)
	if err != nil || dir.Files[0].Digest != empty {
		t.Errorf("%+v, %v", dir, err)
	}
	if _, err := Decode(digest.SHA256, data); !errors.Is(err, ErrInvalid) {
		t.Errorf("hash of another function for size 0: %v", err)
	}
}

func TestDecodeRefusesNames(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", "a/b", "/", "a\x00b", "\xff", strings.Repeat("n", MaxName+1),
	} {
		for kind, m := range map[string]*repb.Directory{
			"file":      {Files: []*repb.FileNode{{Name: name, Digest: someDigest.Proto()}}},
			"directory": {Directories: []*repb.DirectoryNode{{Name: name, Digest: someDigest.Proto()}}},
			"symlink":   {Symlinks: []*repb.SymlinkNode{{Name: name, Target: "x"}}},
		} {
			data := encodedLax(m)
			_, err := Decode(digest.SHA256, data)
			var invalid *InvalidError
			if !errors.Is(err, ErrInvalid) || !errors.As(err, &invalid) || invalid.Path != name {
				t.Errorf("%s called %.20q: %v", kind, name, err)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("%s called %.20q: message of %d bytes", kind, name, len(err.Error()))
			}
		}
	}
	for _, name := range []string{"...", "..a", " ", "-", "a\\b", "ü", "a\nb", strings.Repeat("n", MaxName)} {
		if _, err := Decode(digest.SHA256, encoded(t, &repb.Directory{Files: []*repb.FileNode{{Name: name, Digest: someDigest.Proto()}}})); err != nil {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

// encodedLax encodes with this package's own encoder, which does not mind names.
func encodedLax(m *repb.Directory) []byte {
	d := &Directory{}
	for _, f := range m.Files {
		d.Files = append(d.Files, File{Name: f.Name, Digest: someDigest})
	}
	for _, s := range m.Directories {
		d.Directories = append(d.Directories, Subdirectory{Name: s.Name, Digest: someDigest})
	}
	for _, s := range m.Symlinks {
		d.Symlinks = append(d.Symlinks, Symlink{Name: s.Name, Target: s.Target})
	}
	data, _ := Encode(d)
	return data
}

func TestDecodeRefuses(t *testing.T) {
	upper := &repb.Digest{Hash: strings.ToUpper(someDigest.Hex()), SizeBytes: 1}
	for name, m := range map[string]*repb.Directory{
		"file without digest":      {Files: []*repb.FileNode{{Name: "x"}}},
		"directory without digest": {Directories: []*repb.DirectoryNode{{Name: "x"}}},
		"upper case hash":          {Files: []*repb.FileNode{{Name: "x", Digest: upper}}},
		"short hash":               {Files: []*repb.FileNode{{Name: "x", Digest: &repb.Digest{Hash: "ab"}}}},
		"huge hash":                {Files: []*repb.FileNode{{Name: "x", Digest: &repb.Digest{Hash: strings.Repeat("a", 1<<20)}}}},
		"negative size":            {Files: []*repb.FileNode{{Name: "x", Digest: &repb.Digest{Hash: someDigest.Hex(), SizeBytes: -1}}}},
		"size 0 of something":      {Files: []*repb.FileNode{{Name: "x", Digest: &repb.Digest{Hash: someDigest.Hex()}}}},
		"symlink without target":   {Symlinks: []*repb.SymlinkNode{{Name: "x"}}},
		"target with NUL":          {Symlinks: []*repb.SymlinkNode{{Name: "x", Target: "a\x00b"}}},
		"long target":              {Symlinks: []*repb.SymlinkNode{{Name: "x", Target: strings.Repeat("t", MaxTarget+1)}}},
	} {
		_, err := Decode(digest.SHA256, encoded(t, m))
		var invalid *InvalidError
		if !errors.Is(err, ErrInvalid) || !errors.As(err, &invalid) || invalid.Path != "x" || len(err.Error()) > 1000 {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	for name, data := range map[string][]byte{
		"cut tag":          {0x80},
		"cut field":        {0x0a, 5, 1},
		"field 0":          {0x00, 0},
		"a group":          {0x0b, 0x0c},
		"endless varint":   {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"cut fixed":        {0x0d, 1, 2},
		"cut node":         {0x0a, 1, 0x80},
		"cut subdirectory": {0x12, 1, 0x80},
		"cut symlink":      {0x1a, 1, 0x80},
		"cut digest":       {0x0a, 3, 0x12, 1, 0x80},
		"cut properties":   {0x2a, 1, 0x80},
	} {
		if _, err := Decode(digest.SHA256, data); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeRefusesNamesTwice(t *testing.T) {
	f := func(n string) *repb.FileNode { return &repb.FileNode{Name: n, Digest: someDigest.Proto()} }
	d := func(n string) *repb.DirectoryNode { return directoryNode(n, someDigest) }
	s := func(n string) *repb.SymlinkNode { return &repb.SymlinkNode{Name: n, Target: "t"} }
	type files = []*repb.FileNode
	type dirs = []*repb.DirectoryNode
	type links = []*repb.SymlinkNode
	for name, m := range map[string]*repb.Directory{
		"files":                  {Files: files{f("a"), f("m"), f("m")}},
		"files, unsorted":        {Files: files{f("m"), f("a"), f("m")}},
		"directories":            {Directories: dirs{d("m"), d("m")}},
		"directories, unsorted":  {Directories: dirs{d("m"), d("a"), d("m")}},
		"symlinks":               {Symlinks: links{s("m"), s("m")}},
		"symlinks, unsorted":     {Symlinks: links{s("m"), s("a"), s("m")}},
		"file and directory":     {Files: files{f("a"), f("m")}, Directories: dirs{d("b"), d("m")}},
		"file and symlink":       {Files: files{f("a"), f("m"), f("z")}, Symlinks: links{s("b"), s("m")}},
		"directory and symlink":  {Directories: dirs{d("c"), d("m")}, Symlinks: links{s("a"), s("m")}},
		"across lists, unsorted": {Files: files{f("z"), f("m")}, Directories: dirs{d("b"), d("m")}},
	} {
		_, err := Decode(digest.SHA256, encoded(t, m))
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Path != "m" {
			t.Errorf("%s: %v", name, err)
		}
	}
	fine := &repb.Directory{Files: files{f("b"), f("a")}, Directories: dirs{d("d"), d("c")}, Symlinks: links{s("f"), s("e")}}
	dir, err := Decode(digest.SHA256, encoded(t, fine))
	if err != nil || dir.Files[0].Name != "b" {
		t.Errorf("unsorted: %v, %v", dir, err)
	}
}

// protobuf allows a message to come in pieces and scalars to be repeated.
func TestDecodeMergesAsProtobuf(t *testing.T) {
	node := protowire.AppendString([]byte{0x0a}, "first")
	node = protowire.AppendBytes(append(node, 0x12), protowire.AppendString([]byte{0x0a}, someDigest.Hex()))
	node = append(node, 0x20, 1, 0x20, 0)          // executable, then not
	node = append(node, 0x12, 2, 0x10, 1)          // the digest's size
	node = append(node, 0x32, 4, 0x12, 2, 0x08, 1) // properties, mtime
	node = append(node, 0x32, 4, 0x1a, 2, 0x08, 7) // properties, unix_mode
	node = protowire.AppendString(append(node, 0x0a), "last")
	node = append(node, 0x9a, 0x06, 1, 'u') // an unknown field
	node = append(node, 0x10, 1)            // the digest's number with another wire type: unknown as well
	data := protowire.AppendBytes([]byte{0x0a}, node)

	var m repb.Directory
	if err := proto.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	dir, err := Decode(digest.SHA256, data)
	if err != nil {
		t.Fatal(err)
	}
	same(t, dir, &m)
	if f := dir.Files[0]; f.Name != "last" || f.Executable || f.Properties.GetUnixMode().GetValue() != 7 || f.Properties.GetMtime().GetSeconds() != 1 {
		t.Errorf("%+v", f)
	}
}

// Properties that come twice are merged, which for lists means joined, even when both are the same
// bytes as those of the node before.
func TestDecodeMergesEqualProperties(t *testing.T) {
	raw := encoded(t, &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "n"}}})
	link := func(name string, times int) []byte {
		node := protowire.AppendString([]byte{0x0a}, name)
		node = protowire.AppendString(append(node, 0x12), "target")
		for range times {
			node = protowire.AppendBytes(append(node, 0x22), raw)
		}
		return node
	}
	data := protowire.AppendBytes([]byte{0x1a}, link("a", 1))
	data = protowire.AppendBytes(append(data, 0x1a), link("b", 2))
	data = protowire.AppendBytes(append(data, 0x1a), link("c", 1))
	var m repb.Directory
	if err := proto.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	dir, err := Decode(digest.SHA256, data)
	if err != nil {
		t.Fatal(err)
	}
	same(t, dir, &m)
}

// same compares a Directory with what the generated code reads.
func same(t *testing.T, dir *Directory, m *repb.Directory) {
	t.Helper()
	if len(dir.Files) != len(m.Files) || len(dir.Directories) != len(m.Directories) || len(dir.Symlinks) != len(m.Symlinks) {
		t.Fatalf("%d+%d+%d nodes, want %d+%d+%d", len(dir.Files), len(dir.Directories), len(dir.Symlinks),
			len(m.Files), len(m.Directories), len(m.Symlinks))
	}
	for i, f := range dir.Files {
		w := m.Files[i]
		if f.Name != w.Name || !proto.Equal(f.Digest.Proto(), w.Digest) || f.Executable != w.IsExecutable || !proto.Equal(f.Properties, w.NodeProperties) {
			t.Errorf("file %+v, want %v", f, w)
		}
	}
	for i, s := range dir.Directories {
		if w := m.Directories[i]; s.Name != w.Name || !proto.Equal(s.Digest.Proto(), w.Digest) {
			t.Errorf("directory %+v, want %v", s, w)
		}
	}
	for i, s := range dir.Symlinks {
		if w := m.Symlinks[i]; s.Name != w.Name || s.Target != w.Target || !proto.Equal(s.Properties, w.NodeProperties) {
			t.Errorf("symlink %+v, want %v", s, w)
		}
	}
	if !proto.Equal(dir.Properties, m.NodeProperties) {
		t.Errorf("properties %v, want %v", dir.Properties, m.NodeProperties)
	}
}

// acceptable is the specification of Decode in terms of the generated code.
func acceptable(m *repb.Directory) bool {
	seen := map[string]bool{}
	name := func(n string) bool {
		ok := n != "" && n != "." && n != ".." && len(n) <= MaxName && !strings.ContainsAny(n, "/\x00") && utf8.ValidString(n) && !seen[n]
		seen[n] = true
		return ok
	}
	blob := func(p *repb.Digest) bool {
		d, err := digest.FromProto(digest.SHA256, p)
		return err == nil && (d.Size() > 0 || d.IsEmpty())
	}
	for _, f := range m.Files {
		if !name(f.Name) || !blob(f.Digest) {
			return false
		}
	}
	for _, d := range m.Directories {
		if !name(d.Name) || !blob(d.Digest) {
			return false
		}
	}
	for _, s := range m.Symlinks {
		if !name(s.Name) || s.Target == "" || len(s.Target) > MaxTarget || strings.Contains(s.Target, "\x00") {
			return false
		}
	}
	return true
}

// hasGroup reports whether a group, which Decode refuses, may be anywhere in data.
func hasGroup(data []byte) bool {
	for len(data) > 0 {
		number, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return false
		}
		if typ == protowire.StartGroupType {
			return true
		}
		size := protowire.ConsumeFieldValue(number, typ, data[n:])
		if size < 0 {
			return false
		}
		if value, vn := protowire.ConsumeBytes(data[n:]); typ == protowire.BytesType && vn > 0 && hasGroup(value) {
			return true
		}
		data = data[n+size:]
	}
	return false
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 3, 0x12, 1, 0x80})
	f.Add(encoded(f, &repb.Directory{
		Files:          []*repb.FileNode{{Name: "a", Digest: someDigest.Proto(), IsExecutable: true, NodeProperties: &repb.NodeProperties{UnixMode: wrapperspb.UInt32(1)}}},
		Directories:    []*repb.DirectoryNode{directoryNode("b", someDigest)},
		Symlinks:       []*repb.SymlinkNode{{Name: "c", Target: "../x", NodeProperties: &repb.NodeProperties{Mtime: &timestamppb.Timestamp{Nanos: 1}}}},
		NodeProperties: &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "n", Value: "v"}}},
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, err := Decode(digest.SHA256, data)
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("%v does not wrap ErrInvalid", err)
		}
		var m repb.Directory
		want := proto.Unmarshal(data, &m) == nil && acceptable(&m)
		if want != (err == nil) && !hasGroup(data) {
			t.Fatalf("acceptable %v, error %v", want, err)
		}
		if err != nil {
			return
		}
		same(t, dir, &m)
		again, err := Encode(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(digest.SHA256, again); err != nil {
			t.Fatalf("encoded again: %v", err)
		}
	})
}
