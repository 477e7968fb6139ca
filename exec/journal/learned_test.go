package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/exec/place"
)

// learnedIn opens the journal in dir and gives what it tells of earlier actions.
func learnedIn(t testing.TB, dir string) (all []place.Sample) {
	t.Helper()
	j := open(t, Options{Dir: dir, MaxBytes: segments << 11, Learned: func(mnemonic string, s place.Sample) {
		if mnemonic != "CppCompile" {
			t.Errorf("learned of %q", mnemonic)
		}
		all = append(all, s)
	}})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestLearned: what was learned from actions is told to the next process, in order, but for what a damaged segment held;
// the clock plays no part.
func TestLearned(t *testing.T) {
	dir, blobs := t.TempDir(), newBlobs()
	j := open(t, Options{Dir: dir, MaxBytes: segments << 11})
	var want []place.Sample
	for i := range 12 {
		e := blobs.ending(t, work{target: fmt.Sprintf("//t%d", i)})
		e.Created = time.Now().Add(time.Duration(i%3-1) * time.Hour)
		s := place.Sample{Duration: time.Duration(i+1) * time.Second, Cores: 1.5, MemoryBytes: 1 << 30, InputBytes: 1 << 20, OutputBytes: 1 << 10, Own: i%2 == 0, Starved: i%3 == 0}
		e.Placement = &place.Trace{Learned: s}
		want = append(want, s)
		j.Ended(e)
		e.Placement = &place.Trace{} // which taught nothing
		j.Ended(e)
		find(t, j, "")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if got := learnedIn(t, dir); !slices.Equal(got, want) {
		t.Errorf("learned %v, want %v", got, want)
	}

	all, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil || len(all) < 3 {
		t.Fatalf("segments %v, %v", all, err)
	}
	if err := os.WriteFile(all[1], []byte("no record at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := learnedIn(t, dir)
	if len(got) == 0 || len(got) >= len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] || !slices.IsSortedFunc(got, func(a, b place.Sample) int { return int(a.Duration - b.Duration) }) {
		t.Errorf("learned %v around a damaged segment", got)
	}
}
