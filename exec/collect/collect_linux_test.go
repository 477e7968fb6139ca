//lint:file-ignore SA1019 clients of API 2.0 read the deprecated lists, and they must be filled

package collect

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
)

func TestOutputs(t *testing.T) {
	r := newRun(t, map[string]string{"src/a.c": "a", "src/run.sh": "#!/bin/sh", "dir/kept": "kept", "dir/sub/x": "x"})
	r.write(map[string]string{
		"out/a.o": "object", "out/tool": "#!tool", "out/link": "-> a.o", "out/to-dir": "-> ../dir", "out/dangling": "-> nowhere",
		"dir/new": "new", "dir/empty/": "",
	})
	r.outputs("out/a.o", "out/tool", "out/link", "out/to-dir", "out/dangling", "dir", "src/a.c", "not/made")
	got := r.collect()

	want := &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{
			{Path: "out/a.o", Digest: digest.SHA256.Of([]byte("object")).Proto()},
			{Path: "out/tool", Digest: digest.SHA256.Of([]byte("#!tool")).Proto(), IsExecutable: true},
			{Path: "src/a.c", Digest: digest.SHA256.Of([]byte("a")).Proto()},
		},
		OutputSymlinks: []*repb.OutputSymlink{
			{Path: "out/link", Target: "a.o"}, {Path: "out/to-dir", Target: "../dir"}, {Path: "out/dangling", Target: "nowhere"},
		},
		OutputFileSymlinks:      []*repb.OutputSymlink{{Path: "out/link", Target: "a.o"}, {Path: "out/dangling", Target: "nowhere"}},
		OutputDirectorySymlinks: []*repb.OutputSymlink{{Path: "out/to-dir", Target: "../dir"}},
		OutputDirectories:       got.OutputDirectories,
	}
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if len(got.OutputDirectories) != 1 {
		t.Fatalf("%d output directories", len(got.OutputDirectories))
	}
	dir := got.OutputDirectories[0]
	if dir.Path != "dir" || dir.TreeDigest == nil || dir.RootDirectoryDigest != nil || !dir.IsTopologicallySorted {
		t.Errorf("directory %v, want only a tree", dir)
	}
	wantDir := map[string]string{"kept": "kept", "sub/": "", "sub/x": "x", "new": "new", "empty/": ""}
	if files := r.list(dir); !sameMap(files, wantDir) {
		t.Errorf("directory holds %v, want %v", files, wantDir)
	}
	for _, p := range r.blobs.read {
		if base := filepath.Base(p); base != "a.o" && base != "tool" && base != "new" {
			t.Errorf("read %s, which is unchanged", p)
		}
	}
}

// What the overlay does to a directory: removed names, replaced directories, changed types.
func TestMergedView(t *testing.T) {
	input := map[string]string{
		"d/gone": "1", "d/empty-mark": "2", "d/changed": "3", "d/same": "4", "d/was-file": "5", "d/sub/a": "6", "d/was-dir/x": "7",
		"d/replaced/old": "8", "d/removed/y": "9", "d/link": "-> same", "d/merged/old": "10",
	}
	r := newRun(t, input)
	r.write(map[string]string{
		"d/changed": "#!changed", "d/was-file/": "", "d/was-dir": "a file now", "d/replaced/new": "new", "d/merged/new": "new",
		"d/empty-mark": "", "d/empty": "",
	})
	r.whiteout("d/gone")
	r.whiteout("d/removed")
	r.attribute("d/empty-mark", "user.overlay.whiteout", "")
	r.attribute("d/replaced", "user.overlay.opaque", "y")
	r.attribute("d/merged", "user.overlay.opaque", "x") // may hold marked files, hides nothing
	r.attribute("d/merged", "user.overlay.impure", "y")
	want := map[string]string{
		"changed": "#!changed", "same": "4", "was-file/": "", "sub/": "", "sub/a": "6", "was-dir": "a file now", "replaced/": "",
		"replaced/new": "new", "link": "-> same", "merged/": "", "merged/old": "10", "merged/new": "new", "empty": "",
	}
	for _, format := range []repb.Command_OutputDirectoryFormat{repb.Command_TREE_ONLY, repb.Command_DIRECTORY_ONLY, repb.Command_TREE_AND_DIRECTORY} {
		r.action.Format = format
		r.write(map[string]string{}) // the first round moved the files away
		for p, content := range map[string]string{"d/changed": "#!changed", "d/was-dir": "a file now", "d/replaced/new": "new", "d/merged/new": "new", "d/empty": ""} {
			r.write(map[string]string{p: content})
		}
		o := r.outputs("d", "d/gone", "d/removed/y").collect().OutputDirectories
		if len(o) != 1 {
			t.Fatalf("%v: outputs %v", format, o)
		}
		if got := r.list(o[0]); !sameMap(got, want) {
			t.Errorf("%v: got %v\nwant %v", format, got, want)
		}
		if (o[0].TreeDigest != nil) != (format != repb.Command_DIRECTORY_ONLY) || (o[0].RootDirectoryDigest != nil) != (format != repb.Command_TREE_ONLY) {
			t.Errorf("%v: %v", format, o[0])
		}
	}
	r.attribute("d/sub", "user.overlay.redirect", "/elsewhere")
	if _, err := Outputs(t.Context(), r.blobs, r.action, r.source, Limits{}); !isOutputError(err, "redirected") {
		t.Errorf("redirected directory: %v", err)
	}
}

func (r *run) whiteout(rel string) {
	r.t.Helper()
	r.must(os.MkdirAll(filepath.Dir(r.upper(rel)), 0o755))
	r.must(syscall.Mknod(r.upper(rel), syscall.S_IFCHR, 0))
}

func (r *run) attribute(rel, name, value string) {
	r.t.Helper()
	r.must(os.MkdirAll(filepath.Dir(r.upper(rel)), 0o755))
	if _, err := os.Lstat(r.upper(rel)); err != nil {
		r.must(os.Mkdir(r.upper(rel), 0o755))
	}
	r.must(syscall.Setxattr(r.upper(rel), name, []byte(value), 0))
}

func isOutputError(err error, reason string) bool {
	var bad *OutputError
	return errors.As(err, &bad) && strings.Contains(bad.Error(), reason)
}

// An unchanged directory keeps the digest it came with, and nothing of it is read.
func TestUnchangedKeepsItsDigest(t *testing.T) {
	r := newRun(t, map[string]string{"d/a": "a", "d/b/c": "c"})
	r.action.Format = repb.Command_DIRECTORY_ONLY
	sent := r.source.Input.Root().Directories[0].Digest
	if got := r.outputs("d").collect().OutputDirectories[0]; got.RootDirectoryDigest.Hash != sent.Hex() {
		t.Errorf("digest is %v, was %s", got.RootDirectoryDigest, sent)
	}
	if len(r.blobs.read) != 0 {
		t.Errorf("read %v", r.blobs.read)
	}
}

func TestWholeRoot(t *testing.T) {
	r := newRun(t, map[string]string{"dev/keep": "d", "proc/": "", "tmp/": "", "bin/sh": "#!sh", "bin/x": "-> /bin/sh"})
	r.action.WholeRoot, r.action.Format = true, repb.Command_DIRECTORY_ONLY
	r.write(map[string]string{"tmp/junk": "junk", "dev/shm/": "", "build/out": "out", "proc/1/": ""})
	result := r.outputs(".").collect()
	want := map[string]string{
		"dev/": "", "dev/keep": "d", "proc/": "", "tmp/": "", "bin/": "", "bin/sh": "#!sh", "bin/x": "-> /bin/sh", "build/": "", "build/out": "out",
	}
	o := result.OutputDirectories[0]
	if got := r.list(o); !sameMap(got, want) || o.TreeDigest == nil || o.RootDirectoryDigest == nil {
		t.Errorf("got %v of %v\nwant %v", got, o, want)
	}
}

// Outputs through links: inside the root they are followed, out of it is an error, the last is not followed.
func TestLinksOnTheWay(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, link, output string
		wholeRoot          bool
		want               string // content, a link, "" for none, or an error in parentheses
	}{
		{name: "inside", link: "real", output: "l/f", want: "inside"},
		{name: "inside by dots", link: "real/../real/.", output: "l/f", want: "inside"},
		{name: "inside, absolute", link: "/build/real", output: "l/f", want: "inside"},
		{name: "whole root, absolute", link: "/real", output: "l/f", wholeRoot: true, want: "inside"},
		{name: "whole root, dots stop at the top", link: "../../real", output: "l/f", wholeRoot: true, want: "inside"},
		{name: "out by dots", link: "../../real", output: "l/f", want: "(out of the input root)"},
		{name: "out, absolute", link: filepath.Dir(secret), output: "l/secret", want: "(out of the input root)"},
		{name: "out, whole root stays in", link: filepath.Dir(secret), output: "l/secret", wholeRoot: true, want: ""},
		{name: "similar prefix", link: "/build-other", output: "l/f", want: "(out of the input root)"},
		{name: "loop", link: "l", output: "l/f", want: "(too many symbolic links)"},
		{name: "last is not followed", link: secret, output: "l", want: "-> " + secret},
		{name: "through a file", link: "real/f", output: "l/x", want: ""},
		{name: "dangling", link: "none", output: "l/x", want: ""},
	} {
		r := newRun(t, map[string]string{"in": "in"})
		r.write(map[string]string{"real/f": "inside", "l": "-> " + c.link})
		r.action.WholeRoot = c.wholeRoot
		result, err := Outputs(t.Context(), r.blobs, r.outputs(c.output).action, r.source, Limits{})
		if reason, fails := strings.CutPrefix(c.want, "("); fails {
			if !isOutputError(err, strings.TrimSuffix(reason, ")")) {
				t.Errorf("%s: error %v, want %s", c.name, err, reason)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := ""
		if len(result.OutputFiles) == 1 {
			got = string(r.blobs.get(result.OutputFiles[0].Digest))
		} else if len(result.OutputSymlinks) == 1 {
			got = "-> " + result.OutputSymlinks[0].Target
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLegacyTypes(t *testing.T) {
	for _, c := range []struct {
		name, path string
		directory  bool
		want       string // list the output is in, or an error in parentheses
	}{
		{"file as file", "f", false, "files"},
		{"file as directory", "f", true, "(is a file)"},
		{"directory as directory", "d", true, "directories"},
		{"directory as file", "d", false, "(is a directory)"},
		{"link to file", "lf", false, "file links"},
		{"link to directory", "ld", true, "directory links"},
		{"link to directory as file", "ld", false, "(another type)"},
		{"link to file as directory", "lf", true, "(another type)"},
		{"dangling as file", "no", false, "file links"},
		{"dangling as directory", "no", true, "directory links"},
		{"missing", "none", true, ""},
	} {
		r := newRun(t, map[string]string{})
		r.write(map[string]string{"f": "f", "d/x": "x", "lf": "-> f", "ld": "-> d", "no": "-> none"})
		r.action.Legacy = true
		r.action.Outputs = []action.Output{{Path: c.path, Clean: c.path, Directory: c.directory}}
		result, err := Outputs(t.Context(), r.blobs, r.action, r.source, Limits{})
		if reason, fails := strings.CutPrefix(c.want, "("); fails {
			if !isOutputError(err, strings.TrimSuffix(reason, ")")) {
				t.Errorf("%s: error %v, want %s", c.name, err, reason)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var in []string
		for list, n := range map[string]int{
			"files": len(result.OutputFiles), "directories": len(result.OutputDirectories), "links": len(result.OutputSymlinks),
			"file links": len(result.OutputFileSymlinks), "directory links": len(result.OutputDirectorySymlinks),
		} {
			if n > 0 {
				in = append(in, list)
			}
		}
		if got := strings.Join(in, ","); got != c.want {
			t.Errorf("%s: in %q, want %q", c.name, got, c.want)
		}
	}
}

func TestNodeProperties(t *testing.T) {
	r := newRun(t, map[string]string{"d/in": "in", "d/sub/x": "x"})
	r.write(map[string]string{"d/new": "new"})
	when := time.Unix(5000, 42)
	r.must(os.Chmod(r.upper("d/new"), 0o640))
	r.must(os.Chtimes(r.upper("d/new"), when, when))
	r.action.OutputNodeProperties, r.source.InputMode = []string{"mtime", "unix_mode"}, 0o644
	o := r.outputs("d").collect().OutputDirectories[0]
	m := &repb.Tree{}
	r.must(proto.Unmarshal(r.blobs.get(o.TreeDigest), m))
	for _, f := range m.Root.Files {
		mtime, mode := f.NodeProperties.GetMtime().AsTime(), f.NodeProperties.GetUnixMode().GetValue()
		switch {
		case f.Name == "new" && (!mtime.Equal(when) || mode != 0o640):
			t.Errorf("new: %v %o", mtime, mode)
		case f.Name == "in" && (!mtime.Equal(r.source.InputTime) || mode != 0o644):
			t.Errorf("in: %v %o", mtime, mode)
		}
	}
	if p := m.Children[0].NodeProperties; !p.GetMtime().AsTime().Equal(r.source.InputTime) || p.GetUnixMode().GetValue() != 0o755 {
		t.Errorf("unchanged directory: %v", p)
	}
}

func TestSpecialFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"named pipe": func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"socket": func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		},
	} {
		r := newRun(t, nil)
		r.must(os.Mkdir(r.upper("o"), 0o755))
		r.must(make(r.upper("o/x")))
		for _, out := range []string{"o", "o/x"} {
			if _, err := Outputs(t.Context(), r.blobs, r.outputs(out).action, r.source, Limits{}); !isOutputError(err, name) {
				t.Errorf("%s in output %q: %v", name, out, err)
			}
		}
	}
}

func TestNamesThatAreNotUTF8(t *testing.T) {
	for name, content := range map[string]string{"o/\xff": "content", "o/link": "-> \xff"} {
		r := newRun(t, nil)
		r.write(map[string]string{name: content})
		if _, err := Outputs(t.Context(), r.blobs, r.outputs("o").action, r.source, Limits{}); !isOutputError(err, "UTF-8") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Modes the action left must not keep its owner from reading.
func TestUnreadable(t *testing.T) {
	r := newRun(t, map[string]string{"d/old": "old"})
	r.write(map[string]string{"d/f": "f", "d/x": "#!x", "d/e/g": "g"})
	r.must(os.Chmod(r.upper("d/x"), 0o100))
	for _, p := range []string{"d/f", "d/e/g", "d/e", "d", ""} {
		r.must(os.Chmod(r.upper(p), 0))
	}
	want := map[string]string{"f": "f", "x": "#!x", "e/": "", "e/g": "g", "old": "old"}
	if got := r.list(r.outputs("d").collect().OutputDirectories[0]); !sameMap(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// An input that the store evicted while the action ran comes back from the layers.
func TestEvictedInputIsRestored(t *testing.T) {
	r := newRun(t, map[string]string{"d/a": "a", "d/b": "b"})
	a, b := digest.SHA256.Of([]byte("a")), digest.SHA256.Of([]byte("b"))
	r.must(os.Mkdir(filepath.Join(r.source.Lowers[0], "d"), 0o755))
	r.must(os.WriteFile(filepath.Join(r.source.Lowers[0], "d/a"), []byte("a"), 0o444))
	delete(r.blobs.data, a)
	o := r.outputs("d").collect().OutputDirectories[0]
	if got := r.list(o); !sameMap(got, map[string]string{"a": "a", "b": "b"}) {
		t.Errorf("got %v", got)
	}
	if _, err := os.Stat(filepath.Join(r.source.Lowers[0], "d/a")); err != nil {
		t.Error("the layer lost its file")
	}
	delete(r.blobs.data, b)
	_, err := Outputs(t.Context(), r.blobs, r.action, r.source, Limits{})
	var missing *tree.MissingError
	if !errors.As(err, &missing) || len(missing.Digests) != 1 || missing.Digests[0] != b {
		t.Errorf("nowhere to be found: %v", err)
	}
}

// Outputs may contain each other, and one inode may have two names; each file is read once.
func TestOverlappingOutputs(t *testing.T) {
	r := newRun(t, nil)
	r.write(map[string]string{"d/e/f": "f", "d/g": "g"})
	r.must(os.Link(r.upper("d/g"), r.upper("d/h")))
	result := r.outputs("d/e/f", "d", "d/e", "./d").collect()
	if len(result.OutputFiles) != 1 || len(result.OutputDirectories) != 3 || len(r.blobs.read) != 3 {
		t.Errorf("%v, read %v", result, r.blobs.read)
	}
	if result.OutputDirectories[2].Path != "./d" {
		t.Errorf("path came back as %q", result.OutputDirectories[2].Path)
	}
	if got := r.list(result.OutputDirectories[0]); !sameMap(got, map[string]string{"e/": "", "e/f": "f", "g": "g", "h": "g"}) {
		t.Errorf("got %v", got)
	}
}

// Without an input tree the upper directory is everything, and marks mean nothing.
func TestMergedUpper(t *testing.T) {
	r := newRun(t, nil)
	r.source.Input = nil
	r.write(map[string]string{"d/f": "f", "d/empty": ""})
	if got := r.list(r.outputs("d").collect().OutputDirectories[0]); !sameMap(got, map[string]string{"f": "f", "empty": ""}) {
		t.Errorf("got %v", got)
	}
}

func TestLimits(t *testing.T) {
	deep := strings.Repeat("d/", 20)
	for name, l := range map[string]Limits{"nodes": {MaxNodes: 5}, "bytes": {MaxBytes: 7}, "depth": {MaxDepth: 10}} {
		r := newRun(t, nil)
		r.write(map[string]string{"o/" + deep: "", "o/f": "12345678"})
		if _, err := Outputs(t.Context(), r.blobs, r.outputs("o").action, r.source, l); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), name[:4]) && name != "depth" && name != "nodes" {
			t.Errorf("%s: %v", name, err)
		}
		if len(r.blobs.read) != 0 {
			t.Errorf("%s: %v was stored before the limit was seen", name, r.blobs.read)
		}
	}
}

// Names can be nested deeper than any path can say; an action gets there step by step.
func TestPathTooLong(t *testing.T) {
	r := newRun(t, nil)
	at, err := os.OpenRoot(r.source.Upper)
	r.must(err)
	name := strings.Repeat("n", 200)
	for range 30 {
		r.must(at.Mkdir(name, 0o755))
		below, err := at.OpenRoot(name)
		r.must(err)
		r.must(at.Close())
		at = below
	}
	r.must(at.WriteFile("f", []byte("deep"), 0o644))
	r.must(at.Close())
	if _, err := Outputs(t.Context(), r.blobs, r.outputs(name).action, r.source, Limits{}); !isOutputError(err, "too long") {
		t.Errorf("deep output: %v", err)
	}
}

// Properties that were not asked for are not part of outputs, also of unchanged inputs.
func TestPropertiesNotAskedFor(t *testing.T) {
	r := newRun(t, map[string]string{"d/plain/x": "x"})
	own := &repb.NodeProperties{Properties: []*repb.NodeProperty{{Name: "SubtreeReadOnly", Value: "true"}}}
	b := tree.NewBuilder(digest.SHA256)
	inner, err := b.Add(&tree.Directory{Properties: own, Files: []tree.File{{Name: "f", Digest: r.blobs.put([]byte("f")), Properties: own}}})
	r.must(err)
	root, err := b.Add(&tree.Directory{Directories: []tree.Subdirectory{{Name: "d", Digest: inner}}})
	r.must(err)
	r.source.Input, err = b.Tree(root, tree.DefaultLimits())
	r.must(err)
	r.action.Format = repb.Command_DIRECTORY_ONLY
	o := r.outputs(".").collect().OutputDirectories[0]
	if got := r.list(o); !sameMap(got, map[string]string{"d/": "", "d/f": "f"}) {
		t.Errorf("got %v", got)
	}
	for d, data := range r.blobs.data {
		if d != inner && d != root && strings.Contains(string(data), "SubtreeReadOnly") {
			t.Errorf("%s has the property", d)
		}
	}
	if o.RootDirectoryDigest.Hash == root.Hex() {
		t.Error("the digest is the input's, which has properties")
	}
}

func TestStoreFails(t *testing.T) {
	r := newRun(t, nil)
	for i := range 50 {
		r.write(map[string]string{fmt.Sprint("d/", i): "x"})
	}
	r.blobs.fail = syscall.ENOSPC
	if _, err := Outputs(t.Context(), r.blobs, r.outputs("d").action, r.source, Limits{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full store: %v", err)
	}
}

// The same directory many times over is encoded once; parents come before children.
func TestTreeIsDeduplicated(t *testing.T) {
	r := newRun(t, nil)
	for i := range 10 {
		r.write(map[string]string{fmt.Sprintf("d/%d/same/f", i): "f"})
	}
	o := r.outputs("d").collect().OutputDirectories[0]
	m := &repb.Tree{}
	r.must(proto.Unmarshal(r.blobs.get(o.TreeDigest), m))
	if len(m.Children) != 2 || len(m.Children[0].Directories) != 1 || len(m.Children[1].Files) != 1 {
		t.Errorf("children %v", m.Children)
	}
}

func TestParents(t *testing.T) {
	a := &action.Action{}
	for _, p := range []string{"a/b/c", "a/b/d", "x", "e/f", "."} {
		a.Outputs = append(a.Outputs, action.Output{Path: p, Clean: path.Clean(p)})
	}
	if got := strings.Join(Parents(a), " "); got != "a/b e" {
		t.Errorf("parents %q", got)
	}
}
