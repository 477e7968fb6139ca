package initproc

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestNumbers(t *testing.T) {
	for text, want := range map[string][]int{
		"": nil, "12 345 ": {12, 345}, "12 34": {12}, "0 1 2 ": {2}, "-5 ": {5}, "x ": nil,
	} {
		if got := numbers([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// TestOwnChildren proves that only children of this process are taken for such.
func TestOwnChildren(t *testing.T) {
	if len(ownChildren()) != 0 {
		t.Fatalf("children before there are any: %v", ownChildren())
	}
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got := ownChildren(); !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Errorf("%v, want %d", got, cmd.Process.Pid)
	}
	_ = stdin.Close()
	_ = cmd.Wait()
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o755, "plain": 0o644} {
		if err := os.WriteFile(dir+"/"+name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"X=1", "PATH=/nowhere:" + dir + ":/bin"}
	if path, f := lookup("tool", env); f != nil || path != dir+"/tool" {
		t.Errorf("%q, %v", path, f)
	}
	if path, f := lookup("sh", nil); f != nil || !strings.HasSuffix(path, "/sh") {
		t.Errorf("without PATH: %q, %v", path, f)
	}
	for _, name := range []string{"plain", "missing", "", dir, "./missing"} {
		if path, f := lookup(name, env); f == nil || f.stage != StageLookup {
			t.Errorf("%q: %q, %v", name, path, f)
		}
	}
}
