package cas_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/castest"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// inMountNamespace is set in the process that may mount.
const inMountNamespace = "CAS_TEST_MOUNT_NAMESPACE"

// tinyDisk mounts a file system of size bytes, which goes with the process. Called first in a test,
// it runs the test again in a process with mounts of its own and gives "" here.
func tinyDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a tiny file system needs root")
	}
	if os.Getenv(inMountNamespace) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inMountNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		switch {
		case errors.Is(err, syscall.EPERM):
			t.Skipf("mount namespaces are not allowed: %v", err)
		case err != nil:
			t.Errorf("%v\n%s", err, out)
		case bytes.Contains(out, []byte("--- SKIP")):
			t.Skipf("%s", out)
		}
		return ""
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a tiny file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// tinyStore opens a store that believes in much more on a file system of 8 MiB. Where tinyDisk gives "", it is nil.
func tinyStore(t *testing.T) (s *cas.Store, dir string, clock *castest.Clock) {
	t.Helper()
	disk := tinyDisk(t, "8m")
	if disk == "" {
		return nil, "", nil
	}
	dir, clock = filepath.Join(disk, "store"), castest.NewClock()
	s, err := cas.Open(dir, cas.Options{MaxBytes: 1 << 30, MinFree: -1, Lease: time.Minute, Clock: clock.Now})
	must(t, err)
	return s, dir, clock
}

// TestRealDiskFull fills a real file system of 8 MiB under a store that believes in much more.
func TestRealDiskFull(t *testing.T) {
	ctx := context.Background()
	s, dir, clock := tinyStore(t)
	if s == nil {
		return
	}
	var stored []cas.Blob
	full := 0
	for i := range 400 {
		b := castest.Make(uint64(i), []int{1000, 20 << 10, 70 << 10}[i%3])
		err := s.Put(ctx, b.Digest, b.Data)
		switch {
		case err == nil:
			stored = append(stored, b)
		case errors.Is(err, cas.ErrFull):
			full++
		default:
			t.Fatal(err)
		}
	}
	if full == 0 {
		t.Fatal("the disk never filled")
	}
	for _, b := range stored {
		got, err := s.Get(ctx, b.Digest)
		must(t, err)
		must(t, cas.Blob{Digest: b.Digest, Data: got}.Check())
	}
	w, err := s.NewWriter(ctx, castest.Make(9999, 4<<20).Digest)
	if err == nil {
		_, err = w.Write(castest.Content(9999, 4<<20))
		w.Abort()
	}
	if !errors.Is(err, cas.ErrFull) {
		t.Errorf("a stream onto a full disk gave %v", err)
	}
	clock.Advance(time.Hour) // leases end: now it can evict
	for i := range 300 {
		b := castest.Make(uint64(5000+i), []int{1000, 20 << 10, 70 << 10}[i%3])
		if err := s.Put(ctx, b.Digest, b.Data); err != nil {
			t.Fatalf("blob %d: %v", i, err)
		}
		clock.Advance(time.Minute)
		last := []digest.Digest{b.Digest}
		if missing, err := s.Missing(ctx, last); err != nil || len(missing) != 0 {
			t.Fatalf("blob %d left at once, %v", i, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("close on a full disk: %v", err)
	}
	s = open(t, dir, cas.Options{MaxBytes: 1 << 30, MinFree: -1})
	report, err := s.Verify(ctx, cas.VerifyOptions{})
	if err != nil || len(report.Corrupt) > 0 || report.Blobs == 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
	noStrays(t, s, dir)
}

// TestRoomAtOnce has writers of large blobs on a file system of 8 MiB take their room when they begin: nothing is left of one that
// finds none, what may go makes way, and what one has taken no other gets.
func TestRoomAtOnce(t *testing.T) {
	ctx := context.Background()
	s, dir, clock := tinyStore(t)
	if s == nil {
		return
	}
	defer s.Close()
	old, next := put(t, s, 1, 4<<20), castest.Make(2, 6<<20)
	if _, err := s.NewWriter(ctx, next.Digest); !errors.Is(err, cas.ErrFull) || s.Stat().Reserved != 0 {
		t.Fatalf("a writer without room: %v, %d bytes reserved", err, s.Stat().Reserved)
	}
	noStrays(t, s, dir)
	clock.Advance(time.Hour) // the first one's lease ends
	w, err := s.NewWriter(ctx, next.Digest)
	must(t, err)
	if s.Contains(old.Digest) {
		t.Error("what may go has not made way")
	}
	if _, err := s.NewWriter(ctx, castest.Make(3, 4<<20).Digest); !errors.Is(err, cas.ErrFull) {
		t.Errorf("a second writer found room that the first had taken: %v", err)
	}
	_, err = w.Write(next.Data)
	must(t, err)
	must(t, w.Commit())
	noStrays(t, s, dir)
}

// TestOtherFileSystem materializes to and ingests from a file system that cannot link to the store.
func TestOtherFileSystem(t *testing.T) {
	disk, ctx := tinyDisk(t, "8m"), context.Background()
	if disk == "" {
		return
	}
	s := open(t, t.TempDir(), cas.Options{})
	b := put(t, s, 1, 100<<10)
	path := filepath.Join(disk, "copy")
	must(t, s.Materialize(ctx, b.Digest, path, true))
	got, err := os.ReadFile(path)
	must(t, err)
	must(t, cas.Blob{Digest: b.Digest, Data: got}.Check())
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o555 {
		t.Errorf("copied as %v, %v", info, err)
	}
	data := castest.Content(2, 100<<10)
	must(t, os.WriteFile(path+"2", data, 0o600))
	d, err := s.PutFile(ctx, digest.SHA256, path+"2")
	must(t, err)
	if d != digest.SHA256.Of(data) || !s.Contains(d) || s.Stat().Reserved != 0 {
		t.Errorf("ingested as %s, %+v", d.Short(), s.Stat())
	}
}
