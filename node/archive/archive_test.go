package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// item is one entry of a tar that a test writes.
type item struct {
	name, content string
	kind          byte // 0: a file
	mode          int64
	target        string
}

// tarOf writes items as they are, good or bad.
func tarOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, i := range items {
		h := &tar.Header{Name: i.name, Typeflag: i.kind, Mode: i.mode, Linkname: i.target, Size: int64(len(i.content))}
		if i.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, i.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read stores a tar in a new store.
func read(t testing.TB, data []byte, limits Limits) (*casfake.Store, digest.Digest, error) {
	t.Helper()
	store := casfake.New(cas.Options{})
	d, err := Read(t.Context(), bytes.NewReader(data), store, ReadOptions{Function: digest.SHA256, Dir: t.TempDir(), Limits: limits})
	return store, d, err
}

// write is the tar of a tree.
func write(t testing.TB, from Source, root digest.Digest) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(t.Context(), &out, from, root); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// listing is what a tar holds, a line for each entry.
func listing(t testing.TB, data []byte) []string {
	t.Helper()
	var lines []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%c %o %s %d %s %s", h.Typeflag, h.Mode, h.Name, h.Size, h.Linkname, h.ModTime.UTC().Format("2006-01-02T15:04:05")))
	}
}

// sample is everything a tree can hold, out of order.
func sample(t testing.TB) []byte {
	t.Helper()
	return tarOf(t,
		item{name: "./usr/share/big", content: strings.Repeat("0123456789abcdef", 32<<10)},
		item{name: "usr/bin/hello", content: "#!/bin/sh\n", mode: 0o4711},
		item{name: "usr/bin/hello-link", kind: tar.TypeSymlink, target: "hello"},
		item{name: "empty/", kind: tar.TypeDir, mode: 0o700},
		item{name: "usr/bin/up", kind: tar.TypeSymlink, target: "../share"},
		item{name: "bin", kind: tar.TypeSymlink, target: "/usr/bin"},
		item{name: "usr/twin", kind: tar.TypeLink, target: "./usr/bin/hello"},
		item{name: "usr/share/none"},
		item{name: "ünïcode/" + strings.Repeat("long", 50), content: "x"},
		item{name: "usr.d", content: "before usr/ by name, after it by path"},
	)
}

func TestRoundTrip(t *testing.T) {
	store, root, err := read(t, sample(t), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	data := write(t, store, root)
	const at = "2011-11-11T11:11:11"
	want := []string{
		"2 777 bin 0 /usr/bin " + at,
		"5 755 empty/ 0  " + at,
		"5 755 usr/ 0  " + at,
		"5 755 usr/bin/ 0  " + at,
		"0 755 usr/bin/hello 10  " + at,
		"2 777 usr/bin/hello-link 0 hello " + at,
		"2 777 usr/bin/up 0 ../share " + at,
		"5 755 usr/share/ 0  " + at,
		"0 644 usr/share/big 524288  " + at,
		"0 644 usr/share/none 0  " + at,
		"0 755 usr/twin 10  " + at,
		"0 644 usr.d 37  " + at,
		"5 755 ünïcode/ 0  " + at,
		"0 644 ünïcode/" + strings.Repeat("long", 50) + " 1  " + at,
	}
	if got := listing(t, data); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// The tar of a tree is a fixed point, in another store as well.
	other, again, err := read(t, data, Limits{})
	if err != nil || again != root {
		t.Fatalf("read again: %v, %v; want %v", again, err, root)
	}
	if !bytes.Equal(write(t, other, again), data) {
		t.Error("one tree gave two tars")
	}
	// What one tree gives is fixed for good: refs of BuildStream and checksums of Bazel depend on it.
	if got := digest.SHA256.Of(data).Hex(); got != "226b031a9d346b1e4c8b88595497edcbe5d3b7579009dfdc8bc1e60b6baf645d" {
		t.Errorf("the tar has the digest %s", got)
	}
}

func TestFolders(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no executable bits and no symlinks for everyone there")
	}
	store, root, err := read(t, sample(t), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	data := write(t, store, root)
	dir := opened(t, t.TempDir())
	if err := Unpack(t.Context(), bytes.NewReader(data), dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir.Name(), "usr/bin/hello"))
	if err != nil || info.Mode().Perm() != 0o755 || !info.ModTime().Equal(tree.ModTime) {
		t.Errorf("%v, %v", info, err)
	}
	var packed bytes.Buffer
	if err := Pack(t.Context(), &packed, dir); err != nil {
		t.Fatal(err)
	}
	if _, again, err := read(t, packed.Bytes(), Limits{}); err != nil || again != root {
		t.Errorf("packed again: %v, %v; want %v", again, err, root)
	}
	if err := Unpack(t.Context(), bytes.NewReader(data), dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over what is there: %v", err)
	}
}

func opened(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestReadRefuses(t *testing.T) {
	link := func(name, target string) item { return item{name: name, kind: tar.TypeSymlink, target: target} }
	file := func(name string) item { return item{name: name, content: "x"} }
	for name, c := range map[string]struct {
		items []item
		want  string // empty: it is taken
	}{
		"path up":                    {[]item{file("a/../../x")}, "leaves the root"},
		"path up and back":           {[]item{file("a/../x")}, "leaves the root"},
		"absolute path":              {[]item{file("/etc/x")}, "absolute"},
		"device":                     {[]item{{name: "dev/null", kind: tar.TypeChar}}, "device node"},
		"block device":               {[]item{{name: "dev/sda", kind: tar.TypeBlock}}, "device node"},
		"pipe":                       {[]item{{name: "p", kind: tar.TypeFifo}}, "named pipe"},
		"through a symlink":          {[]item{link("a", "/etc"), file("a/passwd")}, "is a symlink"},
		"through a file":             {[]item{file("a"), file("a/b")}, "is a file"},
		"file over a directory":      {[]item{file("a/b"), file("a")}, "name of a directory"},
		"symlink over a directory":   {[]item{file("a/b"), link("a", "b")}, "name of a directory"},
		"hard link to nothing":       {[]item{{name: "a", kind: tar.TypeLink, target: "b"}}, "no file of the tar"},
		"hard link out":              {[]item{{name: "a", kind: tar.TypeLink, target: "../b"}}, "leaves the root"},
		"hard link to a directory":   {[]item{file("d/f"), {name: "a", kind: tar.TypeLink, target: "d"}}, "no file of the tar"},
		"symlink out":                {[]item{link("a", "../x")}, "leaves the root"},
		"symlink out from below":     {[]item{link("d/e/a", "../../../x")}, "leaves the root"},
		"symlink out by a symlink":   {[]item{link("a", "."), link("b", "a/../x")}, "leaves the root"},
		"symlink out of an absolute": {[]item{link("a", "/../x")}, "leaves the root"},
		"symlink out by a dangling":  {[]item{link("a", "b/../../x")}, "leaves the root"},
		"symlink to the root":        {[]item{link("d/a", "..")}, ""},
		"symlink inside":             {[]item{file("d/x"), link("e/a", "../d/../d/x")}, ""},
		"dangling symlink":           {[]item{link("a", "no/such")}, ""},
		"absolute symlink":           {[]item{link("a", "/no/such")}, ""},
		"symlinks in a circle":       {[]item{link("a", "b/x"), link("b", "a/y")}, ""},
		"empty target":               {[]item{link("a", "")}, "symlink"},
		"file over a symlink":        {[]item{link("a", "b"), file("a")}, ""},
		"file again":                 {[]item{file("a"), file("a")}, ""},
		"too many bytes":             {[]item{{name: "a", content: strings.Repeat("x", 600)}, {name: "b", content: strings.Repeat("x", 600)}}, "more than 1000 bytes"},
		"too many nodes":             {[]item{file("a/b/c/d/e/f/g/h/i/j")}, "more than 9 files"},
		"root is a file":             {[]item{file("./.")}, "root is not a directory"},
		"unknown type":               {[]item{{name: "a", kind: 'V'}}, "unknown type"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := read(t, tarOf(t, c.items...), Limits{MaxBytes: 1000, MaxNodes: 9})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, _, err := read(t, sample(t)[:700], Limits{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a tar that is cut off: %v", err)
	}
}

func TestUnpackStaysInside(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no symlinks for everyone there")
	}
	outside := t.TempDir()
	for name, items := range map[string][]item{
		"path":    {{name: "../x", content: "x"}},
		"symlink": {{name: "a", kind: tar.TypeSymlink, target: outside}, {name: "a/x", content: "x"}},
		"device":  {{name: "x", kind: tar.TypeChar}},
	} {
		dir := opened(t, t.TempDir())
		if err := Unpack(t.Context(), bytes.NewReader(tarOf(t, items...)), dir); err == nil {
			t.Errorf("%s: it was unpacked", name)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("something was written outside: %v, %v", left, err)
	}
}

func TestWriteTellsWhatIsAbsent(t *testing.T) {
	store, root, err := read(t, sample(t), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	store.Lose(digest.SHA256.Of([]byte("#!/bin/sh\n")))
	var out bytes.Buffer
	var missing *tree.MissingError
	if err := Write(t.Context(), &out, store, root); !errors.As(err, &missing) || len(missing.Digests) != 1 || out.Len() > 0 {
		t.Errorf("%v after %d bytes", err, out.Len())
	}
	if pinned := store.Stat().Pinned; pinned != 0 {
		t.Errorf("%d blobs stay pinned", pinned)
	}
}

func TestCancelled(t *testing.T) {
	store, root, err := read(t, sample(t), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(ctx, io.Discard, store, root); !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	if _, err := Read(ctx, bytes.NewReader(sample(t)), store, ReadOptions{Function: digest.SHA256}); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}

// FuzzRead: whatever comes, what is taken can be written and read again to the same tree.
func FuzzRead(f *testing.F) {
	f.Add(tarOf(f, item{name: "d/f", content: "x", mode: 0o755}, item{name: "l", kind: tar.TypeSymlink, target: "d/../d/f"}, item{name: "h", kind: tar.TypeLink, target: "d/f"}))
	f.Add(tarOf(f, item{name: "a", kind: tar.TypeSymlink, target: "../.."}))
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := Limits{MaxBytes: 1 << 20, MaxNodes: 100}
		store, root, err := read(t, data, limits)
		if err != nil {
			return
		}
		if _, again, err := read(t, write(t, store, root), limits); err != nil || again != root {
			t.Errorf("%v, %v; want %v", again, err, root)
		}
	})
}

func TestPackRefuses(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Skip("no sockets in the file system: ", err)
	}
	defer listener.Close()
	var refused *RefusedError
	if err := Pack(t.Context(), io.Discard, opened(t, dir)); !errors.As(err, &refused) || refused.Path != "s" {
		t.Errorf("a socket: %v", err)
	}
}
