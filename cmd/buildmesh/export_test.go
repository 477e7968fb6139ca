//go:build unix

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

// TestExportImport brings a directory into a node and gets it back in every form, and each form in again: it is always
// the same tree.
func TestExportImport(t *testing.T) {
	ana, bob := up(t), up(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.MkdirAll(filepath.Join(source, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"bin/tool": 0o755, "readme": 0o644} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("bin/tool", filepath.Join(source, "link")); err != nil {
		t.Fatal(err)
	}
	root := func(said string) string {
		t.Helper()
		found := regexp.MustCompile(` is ([0-9a-f]{64}/\d+)\n`).FindStringSubmatch(said)
		if found == nil {
			t.Fatalf("no tree is told: %s", said)
		}
		return found[1]
	}
	want := root(ana.ran(t, "import "+source, statusDone))
	ana.ran(t, "import --as //pkg:tool "+source, statusDone)
	ana.ran(t, "import --as project/element/key "+source, statusDone)
	for name, line := range map[string]string{
		"a.tar": "export //pkg:tool ", "folder": "export project/element/key ", "layout": "export --oci " + want + " ",
	} {
		to := filepath.Join(dir, name)
		if said := ana.ran(t, line+to, statusDone); !strings.HasPrefix(said, want+" is ") {
			t.Errorf("%s: %s", line, said)
		}
		if got := root(bob.ran(t, "import "+to, statusDone)); got != want {
			t.Errorf("%s came back as %s, want %s", name, got, want)
		}
		ana.ran(t, line+to, statusFailed) // never over what is there
	}
	if data, err := os.ReadFile(filepath.Join(dir, "folder", "link")); err != nil || string(data) != "bin/tool" {
		t.Errorf("the folder's link: %q, %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "folder", "bin", "tool")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder's program: %v, %v", info, err)
	}
	t.Chdir(dir)
	if said := ana.ran(t, "export --oci "+want+" relative", statusDone); !strings.Contains(said, "oci:"+filepath.Join(dir, "relative")+"@sha256:") {
		t.Errorf("the image's name is none that container-image takes: %s", said)
	}
	for line, words := range map[string]string{
		"export //never:built " + filepath.Join(dir, "x"): "build it with Bazel",
		"export a/b/c " + filepath.Join(dir, "x"):         "build it again with BuildStream",
		"export nonsense " + filepath.Join(dir, "x"):      "HASH/SIZE",
		"import " + filepath.Join(dir, "absent"):          "no such file",
		"import --as two/parts " + source:                 "PROJECT/ELEMENT/KEY",
		"import " + filepath.Join(source, "readme"):       "read tar",
		"import --as //pkg:tool?path=x " + source:         "whole",
	} {
		if said := ana.ran(t, line, statusFailed); !strings.Contains(said, words) {
			t.Errorf("%s: %s", line, said)
		}
	}
	if err := os.Symlink("../../../etc/passwd", filepath.Join(source, "out")); err != nil {
		t.Fatal(err)
	}
	if said := ana.ran(t, "import "+source, statusFailed); !strings.Contains(said, "out") {
		t.Errorf("a link that leaves the directory: %s", said)
	}
}

// A stream that breaks off leaves nothing that looks like an export, and nothing in the way of the next one.
func TestBrokenExportLeavesNothing(t *testing.T) {
	var begun bytes.Buffer
	w := tar.NewWriter(&begun)
	if err := w.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1 << 10}); err != nil {
		t.Fatal(err)
	}
	broken := func() io.Reader {
		return io.MultiReader(bytes.NewReader(begun.Bytes()), iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	for name, write := range map[string]func(string) error{
		"folder": func(path string) error { return writeFolder(t.Context(), path, broken()) },
		"tar":    func(path string) error { return writeFile(path, broken()) },
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := write(path); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a part of it was left: %v", name, err)
		}
	}
}
