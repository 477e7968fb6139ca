package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A tar becomes an OCI layout, the same one each time, and the layout becomes the same tree again.
func TestLayoutAndBack(t *testing.T) {
	data := tarOf(t, item{name: "bin", kind: tar.TypeDir}, item{name: "bin/tool", content: "#!", mode: 0o755},
		item{name: "bin/link", kind: tar.TypeSymlink, target: "tool"}, item{name: "empty", kind: tar.TypeDir})
	_, want, err := read(t, data, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	one, other := filepath.Join(t.TempDir(), "new"), t.TempDir()
	first, err := Layout(t.Context(), bytes.NewReader(data), one)
	if err != nil || !strings.HasPrefix(first, "sha256:") || !IsLayout(one) || IsLayout(t.TempDir()) {
		t.Fatalf("layout %q, %v", first, err)
	}
	if again, err := Layout(t.Context(), bytes.NewReader(data), other); err != nil || again != first {
		t.Errorf("once more: %s, %v; first %s", again, err, first)
	}
	if _, err := Layout(t.Context(), bytes.NewReader(data), other); err == nil {
		t.Error("a layout was written over another")
	}
	var flat bytes.Buffer
	if err := Flatten(t.Context(), &flat, one); err != nil {
		t.Fatal(err)
	}
	if _, got, err := read(t, flat.Bytes(), Limits{}); err != nil || got != want {
		t.Errorf("the layout holds %v, %v; want %v", got, err, want)
	}
}

// What a layout holds is checked against its digests, and an end of the context ends it.
func TestBadLayouts(t *testing.T) {
	dir := t.TempDir()
	if _, err := Layout(t.Context(), bytes.NewReader(tarOf(t, item{name: "f", content: strings.Repeat("x", 1000)})), dir); err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Flatten(done, &bytes.Buffer{}, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := Layout(done, bytes.NewReader(nil), t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil || len(blobs) != 3 {
		t.Fatalf("blobs %v, %v", blobs, err)
	}
	for _, blob := range blobs {
		whole, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		poisoned := bytes.Clone(whole)
		poisoned[len(poisoned)/2] ^= 1
		if err := os.WriteFile(blob, poisoned, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Flatten(t.Context(), &bytes.Buffer{}, dir); err == nil {
			t.Errorf("%s was changed, and read", filepath.Base(blob))
		}
		if err := os.WriteFile(blob, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Flatten(t.Context(), &bytes.Buffer{}, dir); err != nil {
		t.Errorf("put right again: %v", err)
	}
	if err := Flatten(t.Context(), &bytes.Buffer{}, t.TempDir()); err == nil {
		t.Error("an empty directory is a layout")
	}
}
