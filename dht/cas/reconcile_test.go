package cas

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// TestReconcileAfterPowerLoss opens a store as it may look after power was lost: one file's removal
// was durable and its line was not, another file came without its line.
func TestReconcileAfterPowerLoss(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s, err := Open(dir, Options{boot: func() [16]byte { return [16]byte{1} }})
	if err != nil {
		t.Fatal(err)
	}
	var blobs []Blob
	for i := range 3 {
		data := make([]byte, 100<<10)
		data[0] = byte(i)
		blobs = append(blobs, Blob{digest.SHA256.Of(data), data})
		if err := s.Put(ctx, blobs[i].Digest, data); err != nil {
			t.Fatal(err)
		}
	}
	left := t.TempDir()
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := func(d digest.Digest) string { return (&files{dir: left}).path(KeyOf(d)) }
	stray := filepath.Join(filepath.Dir(path(blobs[0].Digest)), "sha256-"+digest.SHA256.Of([]byte("stray")).Hex())
	for _, name := range []string{stray, path(blobs[0].Digest) + copySuffix} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path(blobs[1].Digest)); err != nil {
		t.Fatal(err)
	}
	s, err = Open(left, Options{boot: func() [16]byte { return [16]byte{2} }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, want := range []bool{true, false, true} {
		if s.Contains(blobs[i].Digest) != want {
			t.Errorf("blob %d present: %v, want %v", i, !want, want)
		}
	}
	for _, name := range []string{stray, path(blobs[0].Digest) + copySuffix} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is left", filepath.Base(name))
		}
	}
}
