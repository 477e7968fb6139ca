package trash

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func fill(t *testing.T, dir string) {
	t.Helper()
	for i := range 5 {
		d := filepath.Join(dir, fmt.Sprint("d", i), "e")
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "f"), nil, 0o400); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o500); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Dir(d), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func left(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestBin(t *testing.T) {
	top := t.TempDir()
	bin := filepath.Join(top, "bin")
	outside := filepath.Join(top, "outside")
	fill(t, filepath.Join(bin, "left over"))
	if err := os.Mkdir(outside, 0o500); err != nil {
		t.Fatal(err)
	}
	b, err := Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tree := filepath.Join(top, "tree")
	fill(t, tree)
	if err := os.Symlink(outside, filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	if err := b.Throw(tree); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(tree); err == nil {
		t.Error("the path is still there after Throw")
	}
	b.Empty()
	if n := left(t, bin); n != 0 {
		t.Errorf("%d trees left after Empty", n)
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("what a link pointed to was touched: %v, %v", info, err)
	}
	if err := b.Throw(tree); err != nil {
		t.Errorf("nothing to throw: %v", err)
	}
}

func TestThrowAtOnce(t *testing.T) {
	top := t.TempDir()
	b, err := Open(filepath.Join(top, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			d := filepath.Join(top, fmt.Sprint(i))
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Error(err)
			}
			if err := b.Throw(d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b.Close()
	b.Close()
	if n := left(t, top); n != 1 {
		t.Errorf("%d names left", n-1)
	}
	// Closed: still takes things away, for the next Open to remove.
	late := filepath.Join(top, "late")
	if err := os.Mkdir(late, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Throw(late); err != nil || left(t, top) != 1 {
		t.Errorf("throw after Close: %v", err)
	}
	again, err := Open(filepath.Join(top, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Empty()
	if n := left(t, filepath.Join(top, "bin")); n != 0 {
		t.Errorf("%d left by the one before", n)
	}
}
