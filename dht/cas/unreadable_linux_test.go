package cas_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// unreadable is a file of which no byte can be read, as of a sector that has failed: the memory of this process begins with
// a page that is not there.
const unreadable = "/proc/self/mem"

// A blob that cannot be read is no longer present, and those after it are verified too.
func TestVerifyUnreadable(t *testing.T) {
	if _, err := os.ReadFile(unreadable); !errors.Is(err, syscall.EIO) {
		t.Fatalf("reading %s: %v", unreadable, err)
	}
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, cas.Options{})
	first, lost, last := put(t, s, 1, 100<<10), put(t, s, 2, 100<<10), put(t, s, 3, 100<<10)
	must(t, os.Remove(blobFile(dir, lost.Digest)))
	must(t, os.Symlink(unreadable, blobFile(dir, lost.Digest)))
	report, err := s.Verify(ctx, cas.VerifyOptions{})
	if err != nil || report.Blobs != 3 || !slices.Equal(report.Corrupt, []digest.Digest{lost.Digest}) {
		t.Errorf("got %+v, %v", report, err)
	}
	if !s.Contains(first.Digest) || s.Contains(lost.Digest) || !s.Contains(last.Digest) {
		t.Error("another one than the lost blob is absent")
	}
	must(t, s.Put(ctx, lost.Digest, lost.Data))
	if report, err = s.Verify(ctx, cas.VerifyOptions{}); err != nil || len(report.Corrupt) > 0 {
		t.Errorf("written again: %+v, %v", report, err)
	}
}
