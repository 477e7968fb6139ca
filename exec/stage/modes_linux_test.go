package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// The same tree with other modes is other layers, also of files that share an inode with the blob store: whoever comes
// first has that, the other one a copy.
func TestModes(t *testing.T) {
	large := strings.Repeat("z", smallFile+1)
	for _, order := range [][]Modes{{ReadOnly, Writable}, {Writable, ReadOnly}} {
		b := newFakeBlobs(t)
		c := open(t, t.TempDir(), b, Options{})
		for i, content := range []string{"one", "two"} { // another tree with the same large files
			tr := b.tree(t, map[string]node{
				"small": {content: content}, "script": {content: "#!" + content, executable: true},
				"large": {content: large}, "program": {content: large, executable: true},
			})
			for n, modes := range order {
				r, err := c.Stage(t.Context(), tr, modes)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Release()
				got := merged(t, r.Lowers)
				for p, want := range map[string][2]string{
					"small": {"-r--r--r--", "-rw-r--r--"}, "script": {"-r-xr-xr-x", "-rwxr-xr-x"},
					"large": {"-r--r--r--", "-rw-r--r--"}, "program": {"-r-xr-xr-x", "-rwxr-xr-x"},
				} {
					if !strings.HasPrefix(got[p], want[modes]+" 1321009871 ") {
						t.Errorf("order %v, tree %d, modes %d: %s is %.40q, want %s", order, i, modes, p, got[p], want[modes])
					}
				}
				info, err := os.Stat(filepath.Join(r.Lowers[0], "large"))
				if err != nil {
					t.Fatal(err)
				}
				if shared := sharedByLayers(info) || info.Sys().(*syscall.Stat_t).Nlink == 2; shared != (n == 0) {
					t.Errorf("order %v, tree %d: modes %d share an inode: %v", order, i, modes, shared)
				}
			}
		}
	}
}

// Many layers of both kinds at a time settle on modes that hold.
func TestModesAtOnce(t *testing.T) {
	b := newFakeBlobs(t)
	c := open(t, t.TempDir(), b, Options{})
	large := strings.Repeat("z", smallFile+1)
	b.tree(t, map[string]node{"large": {content: large}})
	first := filepath.Join(t.TempDir(), "first")
	if err := errors.Join(b.Materialize(t.Context(), digest.SHA256.Of([]byte(large)), first, false), os.Remove(first)); err != nil {
		t.Fatal(err) // the fake makes its own file at the first call
	}
	var all sync.WaitGroup
	for i := range 16 {
		tr := b.tree(t, map[string]node{"large": {content: large}, "own": {content: fmt.Sprint(i)}})
		all.Go(func() {
			r, err := c.Stage(t.Context(), tr, Modes(i%2))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(r.Release)
		})
	}
	all.Wait()
	layers, err := filepath.Glob(filepath.Join(c.dir, layersDir, "*"))
	if err != nil || len(layers) != 16 {
		t.Fatal(err, len(layers))
	}
	modes := map[string]int{}
	for _, l := range layers {
		modes[merged(t, []string{l})["large"][:10]]++
	}
	if modes["-r--r--r--"] != 8 || modes["-rw-r--r--"] != 8 {
		t.Errorf("%v", modes)
	}
}
