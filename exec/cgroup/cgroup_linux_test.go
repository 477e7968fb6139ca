package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestConformance runs one suite on the fake and on what this machine has.
func TestConformance(t *testing.T) {
	t.Run("fake", func(t *testing.T) { conform(t, &Fake{}, false) })
	t.Run("none", func(t *testing.T) { conform(t, None{}, false) })
	t.Run("machine", func(t *testing.T) {
		m, err := Find()
		if err != nil {
			t.Skipf("no control groups here: %v", err)
		}
		conform(t, m, true)
	})
}

func conform(t *testing.T, m Manager, real bool) {
	g, err := m.New("one", Limits{Memory: 64 << 20, Pids: 20, Cores: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.New("one", Limits{}); err == nil && m.Version() != "none" {
		t.Error("a name in use was accepted")
	}
	if _, err := m.New("", Limits{}); err == nil && m.Version() != "none" {
		t.Error("an empty name was accepted")
	}
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	s, err := g.Stat()
	if err != nil || s.Counted != (m.Version() != "none") || s.OutOfMemory {
		t.Errorf("stat %+v, %v", s, err)
	}
	if m.Version() != "none" {
		if err := errors.Join(g.Freeze(true), g.Freeze(false), g.Freeze(true)); err != nil && !errors.Is(err, ErrNoFreezer) {
			t.Errorf("freeze: %v", err)
		}
	} else if err := g.Freeze(true); !errors.Is(err, ErrNoFreezer) {
		t.Errorf("a group that is none froze: %v", err)
	}
	if !real {
		_ = cmd.Process.Kill()
	} else if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("process ended with %v, want killed", err)
	}
	if used, counted := m.Used(); counted && used <= 0 {
		t.Errorf("a process ran, and %v were used", used)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if err := g.Remove(); err != nil {
		t.Errorf("second remove: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func machine(t *testing.T) Manager {
	m, err := Find()
	if err != nil {
		t.Skipf("no control groups here: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// started starts a shell that waits for a line before it does anything, puts it into g, and lets it go.
func started(t *testing.T, g Group, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read line; "+script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	_, _ = io.WriteString(stdin, "go\n")
	_ = stdin.Close()
	return cmd
}

// TestHomeIsMadeAnew: a node whose groups were removed, by one that took it for dead, goes on.
func TestHomeIsMadeAnew(t *testing.T) {
	m, removed := machine(t), 0
	for _, h := range Homes() {
		if h.PID == os.Getpid() {
			removed++
			if err := os.Remove(h.Path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if removed == 0 {
		t.Fatal("there was no home to remove")
	}
	g, err := m.New("again", Limits{Memory: 64 << 20, Pids: 20})
	if err != nil {
		t.Fatal(err)
	}
	cmd := started(t, g, "exit 0")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if s, err := g.Stat(); err != nil || !s.Counted {
		t.Errorf("stat %+v, %v", s, err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestMemoryLimitIsDetected(t *testing.T) {
	g, err := machine(t).New("memory", Limits{Memory: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove()
	_ = started(t, g, "head -c 100m /dev/zero | tail").Wait()
	s, _ := g.Stat()
	if !s.OutOfMemory || s.PeakMemory < 16<<20 || s.PeakMemory > 40<<20 {
		t.Errorf("stat %+v", s)
	}
}

func TestProcessLimitHolds(t *testing.T) {
	g, err := machine(t).New("pids", Limits{Pids: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove()
	if err := started(t, g, "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait").Wait(); err == nil {
		t.Error("more processes than allowed were started")
	}
}

// TestSweep proves that the groups of a dead node go, also when its process id is another's now, and that those of a living one
// stay, and of one of which it cannot be told.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	living := strconv.Itoa(os.Getppid())
	began, err := begin("/proc", os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	dead := deadHome(t)
	for name, stays := range map[string]bool{
		filepath.Join(dead, "run"):                    false,
		dead + "-" + space():                          false,
		dead + "-" + space() + ".3":                   false,
		prefix + living + "-1-" + space():             false, // whose id is another's now
		prefix + living + "-" + began + "-" + space(): true,
		prefix + living + "-" + began:                 true, // of an earlier version
		prefix + living + ".1":                        true, // of a still earlier one
		dead + "-1":                                   true, // a living one's in another container, as far as can be told
		home(1):                                       true,
		"other":                                       true,
	} {
		at := filepath.Join(parent, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, h := range homes("/proc", parent) {
			if strings.HasPrefix(at, h.Path) && (h.Living != stays || !strings.HasPrefix(name, prefix+strconv.Itoa(h.PID))) {
				t.Errorf("%s is %+v", name, h)
			}
		}
		sweep("/proc", parent)
		if _, err := os.Stat(at); (err == nil) != stays {
			t.Errorf("%s stays: want %v, got %v", name, stays, err)
		}
	}
}

// TestSweepInDoubt proves that a process of which nothing can be read is not taken for a dead one.
func TestSweepInDoubt(t *testing.T) {
	proc, parent := t.TempDir(), t.TempDir()
	group := filepath.Join(parent, prefix+"77-1-"+space())
	for _, d := range []string{group, filepath.Join(proc, "77/stat")} { // a directory is no file to read
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(proc, parent)
	if _, err := os.Stat(group); err != nil {
		t.Errorf("swept: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(proc, "77")); err != nil {
		t.Fatal(err)
	}
	sweep(proc, parent)
	if _, err := os.Stat(group); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group of a dead process is left: %v", err)
	}
}

// TestControllersInOneHierarchy: processors and their accounting are often one hierarchy with two names, and an idle group stays out
// of it by either.
func TestControllersInOneHierarchy(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"memory", "pids", "cpu,cpuacct"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cpu", "cpuacct"} {
		if err := os.Symlink("cpu,cpuacct", filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := findV1(root, parseOwn("1:memory:/\n2:pids:/\n3:cpu,cpuacct:/\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, limits := range map[string]Limits{"idle": {Cores: 2, Idle: true}, "busy": {Cores: 2}} {
		if _, err := m.New(name, limits); err != nil {
			t.Fatal(err)
		}
	}
	var made []string
	for _, pattern := range []string{"*", "*/*"} {
		found, err := filepath.Glob(filepath.Join(root, "cpu,cpuacct", pattern))
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, found...)
	}
	if own := filepath.Join(root, "cpu,cpuacct", home(0)); !slices.Equal(made, []string{own, filepath.Join(own, "busy")}) {
		t.Errorf("made %q, want one group in one directory", made)
	}
	if used, counted := m.Used(); counted {
		t.Errorf("without the idle groups %v were used", used)
	}
}

// deadHome is the name of the directory of a node that has ended.
func deadHome(t *testing.T) string {
	t.Helper()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	return prefix + strconv.Itoa(dead.Process.Pid) + "-1"
}

// TestSweepFrozen proves that processes go, too, that stood still when their node was killed.
func TestSweepFrozen(t *testing.T) {
	m := machine(t)
	var parents []string
	switch m := m.(type) {
	case *v1:
		for _, own := range m.homes {
			parents = append(parents, filepath.Dir(own))
		}
	case *v2:
		parents = []string{m.base}
	}
	node := exec.Command("sleep", "600") // lives until all is frozen: another test's sweep would come before
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Process.Kill() })
	began, err := begin("/proc", node.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	dead := fmt.Sprint(prefix, node.Process.Pid, "-", began, "-", space())
	stopped := exec.Command("sleep", "600")
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	for _, parent := range parents {
		group := filepath.Join(parent, dead, "run")
		if err := os.MkdirAll(group, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := write(group, "cgroup.procs", strconv.Itoa(stopped.Process.Pid)); err != nil {
			t.Fatal(err)
		}
		for file, state := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			if _, err := os.Stat(filepath.Join(group, file)); err == nil {
				if err := write(group, file, state); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait() // it was killed
	again, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if err := stopped.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("process ended with %v, want killed", err)
	}
	for _, parent := range parents {
		if _, err := os.Stat(filepath.Join(parent, dead)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left in %s", dead, parent)
		}
	}
}

// TestV2 runs the version 2 code on a directory that looks like a delegated group.
func TestV2(t *testing.T) {
	base := t.TempDir()
	if _, err := findV2(base); err == nil {
		t.Error("a directory without controllers was accepted")
	}
	put := func(dir, file, content string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(base, "cgroup.controllers", "cpu pids\n")
	if m, err := findV2(base); err == nil || m.Version() != "none" {
		t.Errorf("a group without memory was accepted: %v", err)
	}
	put(base, "cgroup.controllers", "cpu memory pids\n")
	m, err := findV2(base)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path ...string) string {
		b, _ := os.ReadFile(filepath.Join(append([]string{base}, path...)...))
		return string(b)
	}
	if get("cgroup.subtree_control") != "+memory +pids +cpu" || get(leaf, "cgroup.procs") != strconv.Itoa(os.Getpid()) {
		t.Error("controllers not handed down, or the node did not move")
	}
	g, err := m.New("run", Limits{Memory: 5 << 20, Pids: 7, Cores: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"memory.max": "5242880", "pids.max": "7", "cpu.weight": "50"} {
		if got := get(home(0), "run", file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	dir := filepath.Join(base, home(0), "run")
	put(dir, "memory.peak", "4096\n")
	put(dir, "memory.events", "oom 1\noom_kill 2\n")
	put(dir, "cpu.stat", "usage_usec 9\nuser_usec 5\nsystem_usec 4\n")
	s, _ := g.Stat()
	if want := (Stat{Counted: true, PeakMemory: 4096, OutOfMemory: true, UserNanos: 5000, SystemNanos: 4000}); s != want {
		t.Errorf("stat %+v", s)
	}
	for frozen, want := range map[bool]string{true: "1", false: "0"} {
		if err := g.Freeze(frozen); err != nil || get(home(0), "run", "cgroup.freeze") != want {
			t.Errorf("freeze %v: %q, %v", frozen, get(home(0), "run", "cgroup.freeze"), err)
		}
	}
	if err := g.Kill(); err != nil || get(home(0), "run", "cgroup.kill") != "1" {
		t.Errorf("kill: %v", err)
	}
	if _, err := m.New("idle", Limits{Cores: 2, Idle: true}); err != nil {
		t.Fatal(err)
	}
	if weight, idle := get(home(0), "idle", "cpu.weight"), get(home(0), "idle", "cpu.idle"); weight != "1" || idle != "1" {
		t.Errorf("idle: weight %q, idle %q, want the least of both", weight, idle)
	}
	if err := os.RemoveAll(filepath.Join(base, home(0))); err != nil {
		t.Fatal(err)
	}
	if _, err := m.New("again", Limits{Pids: 7}); err != nil || get(home(0), "cgroup.subtree_control") != "+memory +pids +cpu" || get(home(0), "again", "pids.max") != "7" {
		t.Errorf("its home, removed by another, is not made anew: %v", err)
	}
}

// TestShare: on this machine a group gets its share of the processors, and an idle one gets what nobody else wants: by cpu.idle in
// version 2; in version 1 by its scheduling alone, outside every group that has a share.
func TestShare(t *testing.T) {
	m := machine(t)
	for name, c := range map[string]struct {
		limits             Limits
		file, shares, idle string // what the kernel says in version 1, or "" when the group is in none; and in version 2
	}{
		"two cores": {Limits{Cores: 2}, "cpu.weight", "2048", "200"},
		"idle":      {Limits{Cores: 2, Idle: true}, "cpu.idle", "", "1"},
	} {
		g, err := m.New(name, c.limits)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.Add(cmd.Process.Pid); err != nil {
			t.Error(err)
		}
		paths, err := own(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "cgroup"))
		if err != nil {
			t.Fatal(err)
		}
		root, file, want := filepath.Join("/sys/fs/cgroup", paths[""]), c.file, c.idle
		if m.Version() == "v1" {
			root, file, want = filepath.Join("/sys/fs/cgroup/cpu", paths["cpu"]), "cpu.shares", c.shares
		}
		got := ""
		if filepath.Base(root) == name {
			data, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				t.Error(err)
			}
			got = strings.TrimSpace(string(data))
		}
		if got != want {
			t.Errorf("%s: %s in %s is %q, want %q", name, file, root, got, want)
		}
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
	}
}

func FuzzParseOwn(f *testing.F) {
	f.Add("0::/\n4:memory,pids:/a:b\n")
	f.Fuzz(func(t *testing.T, data string) {
		for controller, path := range parseOwn(data) {
			if strings.Contains(controller, ":") || !strings.HasPrefix(path, "/") {
				t.Errorf("%q: %q", controller, path)
			}
		}
	})
}
