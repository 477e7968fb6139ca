//go:build linux || darwin

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plain is a launcher that confines nothing: what is around it is under test.
type plain struct{}

func (plain) Search(directory string) search {
	return search{directory: directory, separators: "/", standard: "/usr/bin:/bin"}
}

func (plain) Environment(tmp string) []string { return []string{"TMPDIR=" + tmp, "LANG=C"} }

func (plain) Start(l *launch) (body, error) {
	cmd := exec.Command(l.program, l.arguments[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = l.directory, l.env, l.place.stdout, l.place.stderr
	return startGroup(cmd)
}

// confinedSpec is a run of a shell script on one input file "in".
func confinedSpec(t *testing.T, script string) Spec {
	t.Helper()
	dir := t.TempDir()
	lower := filepath.Join(dir, "lower")
	if err := os.Mkdir(lower, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lower, "in"), []byte("input"), 0o444); err != nil {
		t.Fatal(err)
	}
	return Spec{
		Lowers: []string{lower}, Scratch: filepath.Join(dir, "scratch"), UID: -1, GID: -1,
		WorkingDirectory: "work", Directories: []string{"out/deep"},
		Arguments: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin", "LANG=own"},
	}
}

func TestConfinement(t *testing.T) {
	c := confinement{launcher: plain{}, minFree: 1}
	spec := confinedSpec(t, `cat ../in; echo $LANG >&2; rm -f ../in; echo changed > ../in; echo made > ../out/deep/o; test -d "$TMPDIR"`)
	r, err := c.run(t.Context(), spec)
	if err != nil || r.ExitCode != 0 || r.Reason != Exited || !r.Merged {
		t.Fatalf("%+v, %v", r, err)
	}
	for path, want := range map[string]string{
		r.StdoutPath: "input", r.StderrPath: "own\n", filepath.Join(r.Upper, "in"): "changed\n",
		filepath.Join(r.Upper, "out/deep/o"): "made\n", filepath.Join(spec.Lowers[0], "in"): "input",
	} {
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
		}
	}
	if r.Usage.MaxRSS == 0 || !r.Finished.After(r.Started) {
		t.Errorf("usage %+v, from %v to %v", r.Usage, r.Started, r.Finished)
	}
}

// Every way a run can end before its action is done has its own reason, and leaves no process.
func TestConfinementLimits(t *testing.T) {
	c := confinement{launcher: plain{}, minFree: 1}
	for name, test := range map[string]struct {
		script string
		limits Limits
		want   Reason
	}{
		"wall":   {"sleep 600 & sleep 600", Limits{Wall: 50 * time.Millisecond}, TimedOut},
		"output": {"yes", Limits{Output: 1 << 16}, OutputTooLarge},
		"disk":   {"head -c 4194304 /dev/zero > big; sleep 600", Limits{Disk: 1 << 20}, DiskFull},
		"late":   {"head -c 4194304 /dev/zero > big; exit 1", Limits{Disk: 1 << 20}, DiskFull},
	} {
		t.Run(name, func(t *testing.T) {
			spec := confinedSpec(t, test.script+"; echo end")
			spec.Limits = test.limits
			if strings.Contains(test.script, "exit 1") {
				spec.Arguments[2] = test.script
			}
			r, err := c.run(t.Context(), spec)
			if err != nil || r.Reason != test.want {
				t.Errorf("%v, %v; want %v", r.Reason, err, test.want)
			}
		})
	}
}

// A disk that is merely small can be worked on.
func TestDefaultMinFree(t *testing.T) {
	for total, want := range map[int64]int64{20 << 20: 1 << 20, 1280 << 20: 64 << 20, 1 << 40: 64 << 20} {
		if got := defaultMinFree(total); got != want {
			t.Errorf("of %d bytes %d stay free, want %d", total, got, want)
		}
	}
}

// What a command says counts for nothing on a disk that others have filled, however short it was.
func TestConfinementOnFullDisk(t *testing.T) {
	c := confinement{launcher: plain{}, minFree: math.MaxInt64}
	for _, script := range []string{"exit 0", "exit 1"} {
		if r, err := c.run(t.Context(), confinedSpec(t, script)); err != nil || r.Reason != DiskFull {
			t.Errorf("%s: %v, %v; want %v", script, r.Reason, err, DiskFull)
		}
	}
	if dir := t.TempDir(); spaceLacked(dir, 1) {
		t.Errorf("there is room in %s", dir)
	}
}

func TestConfinementCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	spec := confinedSpec(t, "echo $$ > ../out/pid; kill -STOP $$")
	ended := make(chan error, 1)
	go func() {
		r, err := (&confinement{launcher: plain{}, minFree: 1}).run(ctx, spec)
		if err == nil && r.Reason != Cancelled {
			err = fmt.Errorf("ended by %v", r.Reason)
		}
		ended <- err
	}()
	pid := filepath.Join(spec.Scratch, "upper/out/pid")
	for deadline := time.Now().Add(20 * time.Second); ; {
		if data, _ := os.ReadFile(pid); len(data) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the action did not start")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	data, _ := os.ReadFile(pid)
	var number int
	if _, err := fmt.Sscan(string(data), &number); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(number, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is left: %v", number, err)
	}
}

func TestConfinementRefuses(t *testing.T) {
	c := confinement{launcher: plain{}, minFree: 1}
	whole := confinedSpec(t, "true")
	whole.WholeRoot = true
	if _, err := c.run(t.Context(), whole); !errors.Is(err, ErrNoSandbox) {
		t.Errorf("a whole root: %v", err)
	}
	outside := confinedSpec(t, "true")
	if err := os.Symlink(t.TempDir(), filepath.Join(outside.Lowers[0], "out")); err != nil {
		t.Fatal(err)
	}
	if r, err := c.run(t.Context(), outside); err == nil {
		t.Errorf("a directory was made through a link that leads out of the inputs: %+v", r)
	}
	var command *CommandError
	absent := confinedSpec(t, "true")
	absent.Arguments = []string{"no-such-program-here"}
	if _, err := c.run(t.Context(), absent); !errors.As(err, &command) {
		t.Errorf("a program that does not exist: %v", err)
	}
}

func TestSearch(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o755, "data": 0o644, "win.EXE": 0o644, "bin/inner": 0o755} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	unix := search{directory: dir, separators: "/", standard: dir}
	windows := search{directory: dir, separators: `/\`, extensions: []string{".com", ".EXE"}, standard: dir}
	for _, test := range []struct {
		where search
		name  string
		path  string // value of PATH; empty: not set
		want  string // below dir, or an error
	}{
		{unix, "tool", "", "tool"},
		{unix, "./tool", "/nowhere", "tool"},
		{unix, "inner", "/nowhere:bin", "bin/inner"},
		{unix, "data", "", "EACCES"},
		{unix, "gone", "", "ENOENT"},
		{unix, "", "", "ENOENT"},
		{unix, "bin", "", "EACCES"},
		{windows, "win", "", "win.EXE"},
		{windows, "./win", "", "win.EXE"},
		{windows, "tool", "", "ENOENT"},
	} {
		var env []string
		if test.path != "" {
			env = []string{"PATH=/wrong", "PATH=" + test.path}
		}
		got, err := test.where.find(test.name, env)
		var failed *CommandError
		switch {
		case errors.As(err, &failed) && errors.Is(failed.Err, syscall.EACCES):
			got = "EACCES"
		case errors.As(err, &failed) && errors.Is(failed.Err, syscall.ENOENT):
			got = "ENOENT"
		case err == nil:
			got, _ = filepath.Rel(dir, got)
		}
		if got != test.want {
			t.Errorf("find %q with PATH %q: %s (%v), want %s", test.name, test.path, got, err, test.want)
		}
	}
	if got := withDefaults([]string{"Path=x"}, []string{"PATH=y", "A=1"}, true); strings.Join(got, " ") != "Path=x A=1" {
		t.Errorf("defaults beside names in another case: %v", got)
	}
}
