package cas_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/castest"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// childDir tells the test binary to be the process that gets killed, on this store.
const childDir = "CAS_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// anchors are how many blobs a child pins, so that they must survive whatever is evicted.
const anchors = 24

// crashOptions keep a store tight, so that it evicts and compacts all the time.
func crashOptions() cas.Options { return cas.Options{MaxBytes: 6 << 20, MinFree: -1, Lease: -1} }

// crashSize spreads sizes over both sides of the inline limit.
func crashSize(n uint64) int { return []int{200, 3000, 90 << 10, 16 << 10, 33 << 10, 1}[n%6] }

// child puts blobs for ever and says which it was told are stored. The anchors come first and are
// pinned; a line "anchor n" or "blob n" acknowledges one.
func child(dir string) error {
	s, err := cas.Open(dir, crashOptions())
	if err != nil {
		return err
	}
	ctx := context.Background()
	for n := range uint64(anchors) {
		b := castest.Make(n, crashSize(n))
		if err := s.Put(ctx, b.Digest, b.Data); err != nil {
			return err
		}
		if _, missing := s.Pin([]digest.Digest{b.Digest}); len(missing) > 0 {
			return errors.New("anchor left between put and pin")
		}
		fmt.Println("anchor", n)
	}
	scratch, err := os.MkdirTemp(dir, "scratch-")
	if err != nil {
		return err
	}
	for n := uint64(1000); ; n++ {
		if err := childStep(ctx, s, n, scratch); err != nil {
			return err
		}
		fmt.Println("blob", n)
	}
}

// childStep stores one blob by one of the ways there are.
func childStep(ctx context.Context, s *cas.Store, n uint64, scratch string) error {
	b := castest.Make(n, crashSize(n))
	switch n % 5 {
	case 0:
		path := filepath.Join(scratch, fmt.Sprint(n))
		if err := os.WriteFile(path, b.Data, 0o644); err != nil {
			return err
		}
		_, err := s.PutFile(ctx, digest.SHA256, path)
		return err
	case 1:
		if err := s.Put(ctx, b.Digest, b.Data); err != nil {
			return err
		}
		err := s.Materialize(ctx, b.Digest, filepath.Join(scratch, fmt.Sprint(n)), true)
		if errors.Is(err, cas.ErrNotFound) {
			return nil
		}
		return err
	case 2:
		w, err := s.NewWriter(ctx, b.Digest)
		if err != nil {
			return err
		}
		if _, err := w.Write(b.Data); err != nil {
			return err
		}
		return w.Commit()
	default:
		other := castest.Make(n+1<<20, 2000)
		if errs := s.PutBatch(ctx, []cas.Blob{b, other}); errs != nil {
			return errors.Join(errs...)
		}
		return nil
	}
}

// TestKilledAtAnyMoment kills a process that stores, evicts and compacts, again and again, and looks
// at what is left: all that was acknowledged and could not be evicted is there, everything there is
// whole, and no file is left that the store does not know.
func TestKilledAtAnyMoment(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 6
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	for round := range rounds {
		if round%8 == 0 {
			dir = t.TempDir()
		}
		acknowledged := runAndKill(t, dir, time.Duration(random.IntN(120))*time.Millisecond)
		inspect(t, dir, acknowledged)
	}
}

// runAndKill starts a child, kills it after it has run for a while, and gives the lines it wrote.
func runAndKill(t *testing.T, dir string, after time.Duration) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	in := bufio.NewScanner(out)
	for in.Scan() {
		if len(lines) == 0 {
			defer time.AfterFunc(after, func() { cmd.Process.Kill() }).Stop()
		}
		lines = append(lines, in.Text())
	}
	cmd.Wait()
	if complaint.Len() > 0 {
		t.Fatalf("child: %s", complaint.String())
	}
	if len(lines) == 0 {
		t.Fatal("child stored nothing")
	}
	return lines
}

// inspect opens the store a killed process left.
func inspect(t *testing.T, dir string, acknowledged []string) {
	t.Helper()
	ctx := context.Background()
	s, err := cas.Open(dir, crashOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	report, err := s.Verify(ctx, cas.VerifyOptions{})
	if err != nil || len(report.Corrupt) > 0 {
		t.Fatalf("after a kill: %d damaged blobs, %v", len(report.Corrupt), err)
	}
	last := ""
	for _, line := range acknowledged {
		var n uint64
		if _, err := fmt.Sscanf(line, "anchor %d", &n); err == nil {
			b := castest.Make(n, crashSize(n))
			if data, err := s.Get(ctx, b.Digest); err != nil || (cas.Blob{Digest: b.Digest, Data: data}).Check() != nil {
				t.Errorf("anchor %d was acknowledged and pinned and is gone: %v", n, err)
			}
		}
		last = line
	}
	var n uint64
	if _, err := fmt.Sscanf(last, "blob %d", &n); err == nil {
		// Nothing but the one step that was going on came after it: it cannot have been evicted.
		if d := castest.Make(n, crashSize(n)).Digest; !s.Contains(d) {
			t.Errorf("the last acknowledged blob %d is gone", n)
		}
	}
	noStrays(t, s, dir)
}

// noStrays compares the files under blobs/ with what the store says it has, byte for byte.
func noStrays(t *testing.T, s *cas.Store, dir string) {
	t.Helper()
	files := map[digest.Digest]bool{}
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(entry.Name(), "sha256-"), "x")
		d, err := digest.Parse(digest.SHA256, name, info.Size())
		if err != nil {
			return err
		}
		files[d] = true
		if !s.Contains(d) {
			t.Errorf("file %s is nobody's", entry.Name())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(left) > 0 {
		t.Errorf("%d uploads are left, %v", len(left), err)
	}
	if st := s.Stat(); st.Bytes+st.Dead > st.MaxBytes+st.MaxBytes/8 {
		t.Errorf("%d bytes are used of %d", st.Bytes+st.Dead, st.MaxBytes)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := cas.Open(dir, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "locked by another process") ||
		!strings.Contains(string(out), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("second process said %q, %v", out, err)
	}
	if _, err := cas.Open(dir, cas.Options{}); !errors.Is(err, cas.ErrLocked) {
		t.Errorf("opening twice in one process gave %v", err)
	}
}
