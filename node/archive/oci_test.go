package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
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

// A layer that is small until it is unpacked ends at the limits of whoever reads it, and so does what writes it.
func TestLayoutBomb(t *testing.T) {
	dir := t.TempDir()
	if _, err := Layout(t.Context(), bytes.NewReader(tarOf(t, item{name: "f", content: strings.Repeat("x", 8<<20)})), dir); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	flattened := make(chan error, 1)
	go func() {
		err := Flatten(t.Context(), w, dir)
		w.CloseWithError(err)
		flattened <- err
	}()
	store := casfake.New(cas.Options{})
	_, err := Read(t.Context(), r, store, ReadOptions{Function: digest.SHA256, Dir: t.TempDir(), Limits: Limits{MaxBytes: 1 << 20}})
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("a bomb: %v", err)
	}
	r.CloseWithError(err)
	if err := <-flattened; err == nil {
		t.Error("it was written to the end")
	}
	if n := store.Stat().Blobs; n != 0 {
		t.Errorf("%d blobs of it were stored", n)
	}
}
