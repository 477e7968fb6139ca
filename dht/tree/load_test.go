package tree

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// listing writes a tree down, one line for each node.
func listing(tr *Tree) string {
	var b strings.Builder
	tr.Walk(func(p string, dir *Directory) {
		fmt.Fprintf(&b, "%s/\n", p)
		for _, f := range dir.Files {
			fmt.Fprintf(&b, "%s %s\n", join(p, f.Name), f.Digest.Short())
		}
		for _, s := range dir.Symlinks {
			fmt.Fprintf(&b, "%s -> %s\n", join(p, s.Name), s.Target)
		}
	})
	return b.String()
}

func TestLoad(t *testing.T) {
	for _, fn := range digest.Functions() {
		s := newStore(fn)
		content := fn.Of([]byte("content"))
		leaf := s.message(t, &repb.Directory{
			Files:    []*repb.FileNode{{Name: "f", Digest: content.Proto()}},
			Symlinks: []*repb.SymlinkNode{{Name: "l", Target: "f"}},
		})
		both := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("left", leaf), directoryNode("right", leaf)}})
		root := s.message(t, &repb.Directory{
			Files:       []*repb.FileNode{{Name: "README", Digest: content.Proto()}, {Name: "nothing", Digest: fn.Empty().Proto()}},
			Directories: []*repb.DirectoryNode{directoryNode("deep", both), directoryNode("empty", fn.Empty()), directoryNode("leaf", leaf)},
		})
		tr, err := Load(t.Context(), s, root, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		c := content.Short()
		want := "/\nREADME " + c + "\nnothing " + fn.Empty().Short() + "\ndeep/\ndeep/left/\ndeep/left/f " + c + "\ndeep/left/l -> f\n" +
			"deep/right/\ndeep/right/f " + c + "\ndeep/right/l -> f\nempty/\nleaf/\nleaf/f " + c + "\nleaf/l -> f\n"
		if got := listing(tr); got != want {
			t.Errorf("%s: walked\n%swant\n%s", fn, got, want)
		}
		if got, want := tr.Root().Totals(), (Totals{Nodes: 14, Files: 5, Bytes: 4 * 7, Depth: 3}); got != want {
			t.Errorf("%s: totals %+v, want %+v", fn, got, want)
		}
		if got, want := tr.Directory(leaf).Totals(), (Totals{Nodes: 3, Files: 1, Bytes: 7, Depth: 1}); got != want {
			t.Errorf("%s: totals of leaf %+v, want %+v", fn, got, want)
		}
		if got := tr.Files(); !slices.Equal(got, []digest.Digest{content, fn.Empty()}) {
			t.Errorf("%s: files %v", fn, got)
		}
		if got := tr.Directories(); len(got) != 4 || got[0] != root || tr.Digest() != root {
			t.Errorf("%s: directories %v", fn, got)
		}
		if s.batches != 2 || s.asked[leaf] != 1 {
			t.Errorf("%s: %d batches, the shared directory was read %d times", fn, s.batches, s.asked[leaf])
		}
		if tr.Directory(content) != nil {
			t.Error("a file's digest gives a directory")
		}
	}
}

func TestLoadEmptyRoot(t *testing.T) {
	tr, err := Load(t.Context(), newStore(digest.SHA256), digest.SHA256.Empty(), Limits{})
	if err != nil || tr.Root().Totals().Nodes != 1 {
		t.Errorf("%v, %v", tr, err)
	}
}

func TestLoadTellsEverythingMissing(t *testing.T) {
	s := newStore(digest.SHA256)
	var gone []digest.Digest
	for i := range 3 {
		gone = append(gone, digest.SHA256.Of([]byte{byte(i)}))
	}
	below := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("again", gone[0]), directoryNode("deep", gone[2])}})
	root := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{
		directoryNode("a", gone[0]), directoryNode("b", below), directoryNode("c", gone[1]),
	}})
	_, err := Load(t.Context(), s, root, Limits{})
	var missing *MissingError
	if !errors.As(err, &missing) || !slices.Equal(missing.Digests, gone) {
		t.Errorf("%v, want %v missing", err, gone)
	}
	absent := digest.SHA256.Of([]byte("absent root"))
	if _, err := Load(t.Context(), s, absent, Limits{}); !errors.As(err, &missing) || !slices.Equal(missing.Digests, []digest.Digest{absent}) {
		t.Errorf("absent root: %v", err)
	}
}

func TestLoadNamesTheNode(t *testing.T) {
	s := newStore(digest.SHA256)
	bad := s.put(encodedLax(&repb.Directory{Files: []*repb.FileNode{{Name: ".."}}}))
	mid := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("b", bad)}})
	root := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("a", mid)}})
	_, err := Load(t.Context(), s, root, Limits{})
	var invalid *InvalidError
	if !errors.As(err, &invalid) || invalid.Path != "a/b/.." {
		t.Errorf("%v", err)
	}
}

// chain makes a tree of so many levels, each with width references to the next.
func chain(t testing.TB, s *store, levels, width int) digest.Digest {
	d := s.message(t, &repb.Directory{Files: []*repb.FileNode{fileNode("f", "x")}})
	for range levels - 1 {
		m := &repb.Directory{}
		for i := range width {
			m.Directories = append(m.Directories, directoryNode(fmt.Sprintf("d%d", i), d))
		}
		d = s.message(t, m)
	}
	return d
}

func TestLoadLimits(t *testing.T) {
	s := newStore(digest.SHA256)
	// The short way to the bottom is found first; the long way is what counts.
	long := chain(t, s, 10, 1)
	bottom := chain(t, s, 2, 1)
	uneven := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("long", long), directoryNode("short", bottom)}})
	// A directory that is met high up first, and again at the end of a long way.
	low := chain(t, s, 3, 1)
	way := low
	for range 5 {
		way = s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("d", way)}})
	}
	again := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("high", low), directoryNode("way", way)}})
	wide := &repb.Directory{}
	for i := range 100 {
		wide.Files = append(wide.Files, fileNode(fmt.Sprintf("%03d", i), "x"))
	}
	flat := s.message(t, wide)
	for _, c := range []struct {
		name   string
		root   digest.Digest
		limits Limits
		fine   bool
	}{
		{"as deep as allowed", long, Limits{MaxDepth: 10}, true},
		{"too deep", long, Limits{MaxDepth: 9}, false},
		{"default depth", chain(t, s, 256, 1), Limits{}, true},
		{"over the default depth", chain(t, s, 257, 1), Limits{}, false},
		{"deep on one way", uneven, Limits{MaxDepth: 11}, true},
		{"too deep on one way", uneven, Limits{MaxDepth: 10}, false},
		{"met again deeper", again, Limits{MaxDepth: 9}, true},
		{"met again too deep", again, Limits{MaxDepth: 8}, false},
		{"as many nodes as allowed", flat, Limits{MaxNodes: 101}, true},
		{"too many nodes", flat, Limits{MaxNodes: 100}, false},
		{"expands to as many as allowed", chain(t, s, 5, 2), Limits{MaxNodes: 31 + 16}, true},
		{"expands to too many", chain(t, s, 5, 2), Limits{MaxNodes: 31 + 15}, false},
		{"bomb of 2^60 directories", chain(t, s, 61, 2), Limits{}, false},
		{"bomb beyond int64", chain(t, s, 200, 64), Limits{MaxNodes: math.MaxInt}, true},
		{"as many bytes as allowed", flat, Limits{MaxDirectoryBytes: flat.Size()}, true},
		{"too many bytes", flat, Limits{MaxDirectoryBytes: flat.Size() - 1}, false},
		{"too many bytes together", uneven, Limits{MaxDirectoryBytes: uneven.Size() + 10}, false},
	} {
		_, err := Load(t.Context(), s, c.root, c.limits)
		if c.fine != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestTotalsSaturate(t *testing.T) {
	s := newStore(digest.SHA256)
	huge := &repb.Digest{Hash: someDigest.Hex(), SizeBytes: math.MaxInt64}
	root := s.message(t, &repb.Directory{Files: []*repb.FileNode{{Name: "a", Digest: huge}, {Name: "b", Digest: huge}}})
	tr, err := Load(t.Context(), s, root, Limits{})
	if err != nil || tr.Root().Totals().Bytes != math.MaxInt64 {
		t.Errorf("%v, %v", tr, err)
	}
}

// A directory whose size is a lie is refused before it is asked for.
func TestLoadDoesNotFetchHugeDirectory(t *testing.T) {
	s := newStore(digest.SHA256)
	huge := digest.New(digest.SHA256, someDigest.Hash(), math.MaxInt64)
	root := s.message(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("huge", huge)}})
	if _, err := Load(t.Context(), s, root, Limits{}); !errors.Is(err, ErrInvalid) || s.asked[huge] != 0 {
		t.Errorf("%v, asked %d times", err, s.asked[huge])
	}
}

func TestLoadCycle(t *testing.T) {
	s := newStore(digest.SHA256)
	// Only a store that does not verify can hold a cycle: two digests made up so that sizes fit.
	size := int64(len(encoded(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("x", digest.New(digest.SHA256, someDigest.Hash(), 75))}})))
	a := digest.New(digest.SHA256, [32]byte{1}, size)
	b := digest.New(digest.SHA256, [32]byte{2}, size)
	s.blobs[a] = encoded(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("x", b)}})
	s.blobs[b] = encoded(t, &repb.Directory{Directories: []*repb.DirectoryNode{directoryNode("x", a)}})
	if _, err := Load(t.Context(), s, a, Limits{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "itself") {
		t.Errorf("%v", err)
	}
}

func TestLoadFromFaultyStore(t *testing.T) {
	broken := errors.New("disk on fire")
	for name, spoil := range map[string]func(*store){
		"error":       func(s *store) { s.fail = broken },
		"too few":     func(s *store) { s.lie = func(c [][]byte) [][]byte { return c[:0] } },
		"cut content": func(s *store) { s.lie = func(c [][]byte) [][]byte { return [][]byte{c[0][1:]} } },
	} {
		s := newStore(digest.SHA256)
		root := chain(t, s, 2, 1)
		spoil(s)
		_, err := Load(t.Context(), s, root, Limits{})
		if err == nil || errors.Is(err, ErrInvalid) || (s.fail != nil && !errors.Is(err, broken)) {
			t.Errorf("%s: %v: not the client's fault", name, err)
		}
	}
}

func TestLoadInBatches(t *testing.T) {
	s := newStore(digest.SHA256)
	m := &repb.Directory{}
	for i := range batchCount + 1 {
		d := s.message(t, &repb.Directory{Files: []*repb.FileNode{fileNode(fmt.Sprint(i), "x")}})
		m.Directories = append(m.Directories, directoryNode(fmt.Sprint(i), d))
	}
	if _, err := Load(t.Context(), s, s.message(t, m), Limits{}); err != nil || s.batches != 3 {
		t.Errorf("%d batches, %v", s.batches, err)
	}
}

// large stores a tree of 10,000 files in 1,111 directories.
func large(t testing.TB, s *store) digest.Digest {
	serial := 0
	var level func(depth int) digest.Digest
	level = func(depth int) digest.Digest {
		m := &repb.Directory{}
		for i := range 9 {
			serial++
			m.Files = append(m.Files, fileNode(fmt.Sprintf("source-file-%02d.cc", i), fmt.Sprint(serial)))
		}
		for i := range 10 {
			if depth > 0 {
				m.Directories = append(m.Directories, directoryNode(fmt.Sprintf("directory-%02d", i), level(depth-1)))
			}
		}
		return s.message(t, m)
	}
	return level(3)
}

func BenchmarkLoad10000(b *testing.B) {
	s := newStore(digest.SHA256)
	root := large(b, s)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(b.Context(), s, root, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFiles10000(b *testing.B) {
	s := newStore(digest.SHA256)
	tr, err := Load(b.Context(), s, large(b, s), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(tr.Files()) < 9000 {
			b.Fatal("files lost")
		}
	}
}
