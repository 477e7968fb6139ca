package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

// What the mesh promises to owners.
const (
	cancelled = time.Second      // from Cancel to the end of the action's processes at the executor
	patience  = 3                // by which a slow machine may take longer for that
	orphaned  = 20 * time.Second // from the death of the initiator to it, of which half is waiting for it to call again
)

// A cancelled action is killed at the member that runs it, and so is one whose initiator has died.
func TestEnds(t *testing.T) {
	equipped(t)
	l := mesh(t, 2, lab.Machine{Settings: []string{"BUILDMESH_EXEC_CORES=1"}})
	load, err := NewLoad(l.Node("n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer load.Close()
	// One word that no other process has in its command line.
	word := fmt.Sprintf("0%d.%d", 10_000+os.Getpid(), time.Now().UnixNano())
	begin := func(count int) []string {
		t.Helper()
		names := make([]string, count)
		for i := range names {
			names[i] = fmt.Sprint(word, "-", i)
		}
		operations, err := load.Begin(t.Context(), word, `sleep 600 # `+word, names)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lab.Eventually(t.Context(), 30*time.Second, func(ctx context.Context) error {
			s, err := l.Node("n2").Status(ctx)
			if n := processes(t, word); err == nil && (s.Slots.GetRunning() != 1 || n != 2) {
				err = fmt.Errorf("%d run, %d of them at n2", n, s.Slots.GetRunning())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return operations
	}
	gone := func(what string, promised, limit time.Duration) {
		t.Helper()
		took, err := lab.Eventually(t.Context(), limit, func(context.Context) error {
			if n := processes(t, word); n > 0 {
				return fmt.Errorf("%d processes run", n)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: ended after %.2f s, of %v promised", what, took.Seconds(), promised)
		if !l.Node("n1").Running() {
			if err := l.Node("n1").Start(t.Context()); err != nil { // it throws away what it was doing when it died
				t.Fatal(err)
			}
		}
		if _, err := lab.Eventually(t.Context(), time.Minute, l.Left); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	for _, operation := range begin(2) {
		if err := load.Cancel(t.Context(), operation); err != nil {
			t.Fatal(err)
		}
	}
	gone("cancelled", cancelled, patience*cancelled)

	begin(2)
	if err := l.Node("n1").Kill(); err != nil {
		t.Fatal(err)
	}
	gone("its initiator died", orphaned, orphaned)
}

// processes counts the shells whose command line has a word in it.
func processes(t *testing.T, word string) (count int) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if line, err := os.ReadFile(path); err == nil && bytes.HasPrefix(line, []byte("/bin/sh\x00")) && bytes.Contains(line, []byte(word)) {
			count++
		}
	}
	return count
}
