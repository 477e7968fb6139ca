package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

func command(name string, arguments ...string) *exec.Cmd { return exec.Command(name, arguments...) }

// alive reports whether a process with this word in its command line is left on the machine.
func alive(t *testing.T, word string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), word) && !strings.Contains(f, fmt.Sprintf("/%d/", os.Getpid())) {
			return true
		}
	}
	return false
}

// word is a command line argument that only this test uses.
func word(t *testing.T) string {
	return fmt.Sprintf("%d.%d", 900000+os.Getpid(), time.Now().UnixNano()%1e6)
}

func TestTimeout(t *testing.T) {
	s, w := newStand(t), word(t)
	spec := s.shell("sleep " + w + " & setsid sleep " + w + " & sleep " + w)
	spec.Limits.Wall = 200 * time.Millisecond
	r := s.run(spec)
	if r.Reason != TimedOut || r.ExitCode != 137 {
		t.Errorf("%+v", r)
	}
	if alive(t, w) {
		t.Error("processes are left")
	}
}

func TestCancel(t *testing.T) {
	s, w := newStand(t), word(t)
	ctx, cancel := context.WithCancel(context.Background())
	spec := s.shell("trap 'echo asked to end' TERM INT HUP; echo up; while :; do sleep " + w + "; done")
	done := make(chan Result, 1)
	go func() {
		r, err := s.box.Run(ctx, spec)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	waitFor(t, func() bool { b, _ := os.ReadFile(filepath.Join(spec.Scratch, "stdout")); return len(b) > 0 })
	cancel()
	r := <-done
	if r.Reason != Cancelled || alive(t, w) {
		t.Errorf("%+v, left: %v", r, alive(t, w))
	}
	if said := read(t, r.StdoutPath); said != "up\n" {
		t.Errorf("it was not killed at once: %q", said)
	}
	if r, err := s.box.Run(ctx, s.shell("true")); err != nil || r.Reason != Cancelled {
		t.Errorf("cancelled before: %+v, %v", r, err)
	}
}

// waitFor polls for something another process does.
func waitFor(t *testing.T, claim func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !claim(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 10 s")
		}
	}
}

// TestOrphans proves that Run neither waits for what an action left running nor lets it live.
func TestOrphans(t *testing.T) {
	s := newStand(t)
	for name, script := range map[string]string{
		"holding stdout": "sleep %s & echo main done",
		"daemon":         "setsid sh -c 'trap \"\" HUP TERM; (sleep %s &) ; sleep %[1]s' > /dev/null 2>&1 & echo main done",
	} {
		w := word(t)
		spec := s.shell(fmt.Sprintf(script, w))
		spec.Limits.Wall = 5 * time.Second // far less than they sleep
		if r := s.run(spec); r.Reason != Exited || r.ExitCode != 0 || read(t, r.StdoutPath) != "main done\n" {
			t.Errorf("%s: %+v", name, r)
		}
		if alive(t, w) {
			t.Errorf("%s: lives on", name)
		}
	}
}

func TestCommandErrors(t *testing.T) {
	s := newStand(t)
	s.file("plain", "data", 0o444)
	s.file("garbage", "\x7fnot a program", 0o555)
	s.file("script", "#!/missing/interpreter\n", 0o555)
	s.file("tool", "#!/bin/sh\necho tool $0\n", 0o555)
	for program, want := range map[string]error{
		"missing-program": syscall.ENOENT, "./missing": syscall.ENOENT, "./plain": syscall.EACCES, "/build": syscall.EACCES,
		"./garbage": syscall.ENOEXEC, "./script": syscall.ENOENT, "": syscall.ENOENT, "./plain/x": syscall.ENOTDIR,
	} {
		_, err := s.box.Run(context.Background(), s.spec(program))
		var command *CommandError
		if !errors.As(err, &command) || !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", program, err, want)
		}
	}
	spec := s.spec("tool")
	spec.Env = []string{"PATH=/nowhere:/build:/bin"}
	if r := s.run(spec); read(t, r.StdoutPath) != "tool /build/tool\n" {
		t.Errorf("PATH of the action not used: %q", read(t, r.StdoutPath))
	}
	for name, spec := range map[string]Spec{
		"no arguments": {Scratch: s.dir}, "relative scratch": {Arguments: []string{"x"}, Scratch: "x"},
		"zero byte":    {Arguments: []string{"a\x00b"}, Scratch: s.dir},
		"dots":         {Arguments: []string{"x"}, Scratch: s.dir, WorkingDirectory: "../x"},
		"output above": {Arguments: []string{"x"}, Scratch: s.dir, Directories: []string{"a/../../x"}},
		"layer":        {Arguments: []string{"x"}, Scratch: s.dir, Lowers: []string{"lower"}},
	} {
		if _, err := s.box.Run(context.Background(), spec); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBusyProgram proves that a program still open for writing is tried again.
func TestBusyProgram(t *testing.T) {
	s := newStand(t)
	r := s.run(s.shell(`cp /bin/true mine; exec 9>>mine; (./mine && echo ran) 2>/dev/null; exec 9>&-; ./mine && echo later`))
	if got := read(t, r.StdoutPath); got != "later\n" {
		t.Fatalf("this kernel does not answer text file busy: %q", got)
	}
	code, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(s.dir, "busy")
	if err := os.MkdirAll(filepath.Join(scratch, "upper"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(scratch, "upper", "program")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(code); err != nil {
		t.Fatal(err)
	}
	uid, gid, _ := s.box.Owner()
	_ = os.Chown(path, uid, gid)
	time.AfterFunc(30*time.Millisecond, func() { _ = f.Close() })
	spec := s.spec("./program")
	spec.Scratch = scratch
	if r := s.run(spec); r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
}

// limited runs a script under limits with every kind of control group this machine has.
func limited(t *testing.T, script string, limits Limits, want Reason) {
	t.Helper()
	managers := map[string]cgroup.Manager{"none": cgroup.None{}}
	if m, err := cgroup.Find(); err == nil {
		managers[m.Version()] = m
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	for name, m := range managers {
		t.Run(name, func(t *testing.T) {
			s := newStandWith(t, Options{Groups: m})
			spec := s.spec("bash", "-c", script)
			limits.Wall = 20 * time.Second
			spec.Limits = limits
			if r := s.run(spec); r.Reason != want {
				t.Errorf("%v, want %v: %+v %.300s", r.Reason, want, r, read(t, r.StderrPath))
			} else if want == OutOfMemory && name != "none" && r.Usage.MaxRSS > 2*limits.Memory {
				t.Errorf("used %d", r.Usage.MaxRSS)
			}
		})
	}
}

func TestMemoryHog(t *testing.T) {
	limited(t, "exec python3 -c 'x = bytearray(400 << 20)\nimport time\nfor i in range(0, 400 << 20, 4096): x[i] = 1\ntime.sleep(5)'", Limits{Memory: 100 << 20}, OutOfMemory)
}

func TestModestAction(t *testing.T) {
	limited(t, "head -c 1000000 /dev/zero > out; head -c 1000 /dev/zero; exit 1", Limits{Memory: 500 << 20, Disk: 2 << 20, Output: 1 << 20, Pids: 20}, Exited)
}

func TestDiskFiller(t *testing.T) {
	limited(t, "while :; do i=$((i+1)); head -c 1000000 /dev/zero > f$i || exit 1; done", Limits{Disk: 20 << 20}, DiskFull)
}

// TestFullDisk proves that what a run says counts for nothing when the machine has no room left: the run is over long before
// the watch looks for the first time.
func TestFullDisk(t *testing.T) {
	s := newStandWith(t, Options{MinFree: 1 << 60})
	for _, script := range []string{"exit 0", "exit 1", "kill -9 $$"} {
		if r := s.run(s.shell(script)); r.Reason != DiskFull {
			t.Errorf("%s: %v", script, r.Reason)
		}
	}
}

// TestHiddenDirectories proves that what an action hides from its own user is counted, at the end, and left as it was.
func TestHiddenDirectories(t *testing.T) {
	s := newStand(t)
	// Hidden before the first byte: the watch ends a run as soon as it sees too much.
	spec := s.shell("mkdir -p a/b; cd a/b; exec 3>1 4>2 5>3; chmod 0 .. .; for i in 3 4 5; do head -c 1000000 /dev/zero >&$i; done; exit 1")
	spec.Limits.Disk = 2 << 20
	r := s.run(spec)
	if r.Reason != DiskFull {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(filepath.Join(r.Upper, "a")); err != nil || info.Mode().Perm() != 0 {
		t.Errorf("%v, %v", info, err)
	}
	if err := Remove(spec.Scratch); err != nil {
		t.Error(err)
	}
}

// TestSharedMemory proves that one action does not see the shared memory of another.
func TestSharedMemory(t *testing.T) {
	s := newStand(t)
	if r := s.run(s.shell("ipcmk -M 1024 && ipcs -m | grep -q 0x")); r.ExitCode != 0 {
		t.Errorf("no shared memory: %s", read(t, r.StderrPath))
	}
	if r := s.run(s.shell("ipcs -m | grep 0x")); r.ExitCode == 0 {
		t.Errorf("saw %s", read(t, r.StdoutPath))
	}
}

func TestOneHugeFile(t *testing.T) {
	limited(t, "head -c 200000000 /dev/zero > f", Limits{Disk: 20 << 20, Output: 1 << 20}, DiskFull)
}

func TestEndlessOutput(t *testing.T) {
	limited(t, "yes", Limits{Output: 1 << 20, Disk: 50 << 20}, OutputTooLarge)
	limited(t, "yes >&2", Limits{Output: 1 << 20}, OutputTooLarge)
	limited(t, "head -c 3000000 /dev/zero", Limits{Output: 1 << 20}, OutputTooLarge)
}

// TestForkBomb lets a bounded bomb off: 300 tries where 40 processes are allowed.
func TestForkBomb(t *testing.T) {
	limited(t, `python3 -c 'import os, sys, time
for i in range(300):
	try: pid = os.fork()
	except OSError: sys.exit(0 if i < 60 else 1)
	if pid == 0: time.sleep(10); os._exit(0)
sys.exit(1)' && exit 0 || { echo bomb >&2; exit 1; }`, Limits{Pids: 40}, Exited)
	s := newStand(t)
	spec := s.shell("for i in $(seq 200); do sleep 10 & done; exit 0") // bash would wait and try again
	spec.Limits.Pids = 40
	if r := s.run(spec); !strings.Contains(read(t, r.StderrPath), "fork") {
		t.Errorf("200 processes ran where 40 are allowed: %+v", r)
	}
}

// TestOwnProcessLimit proves that, without control groups too, the processes of one run do not count for another.
func TestOwnProcessLimit(t *testing.T) {
	s := newStand(t)
	ctx, cancel := context.WithCancel(context.Background())
	first := s.spec("bash", "-c", "for i in $(seq 30); do sleep 100 & done; echo up; wait")
	first.Limits.Pids = 40
	ended := make(chan error, 1)
	go func() {
		_, err := s.box.Run(ctx, first)
		ended <- err
	}()
	waitFor(t, func() bool { b, _ := os.ReadFile(filepath.Join(first.Scratch, "stdout")); return len(b) > 0 })
	second := s.spec("bash", "-c", "for i in $(seq 30); do sleep 100 & done; exit 5")
	second.Limits.Pids = 40
	if r := s.run(second); r.ExitCode != 5 {
		t.Errorf("%+v %s", r, read(t, r.StderrPath))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestNothingLeft proves that runs, good and bad, leave no process, mount, control group or descriptor.
func TestNothingLeft(t *testing.T) {
	m, err := cgroup.Find()
	if err != nil {
		m = cgroup.None{}
	}
	s := newStandWith(t, Options{Groups: m})
	w := word(t)
	s.box.spawners.close() // what the probe has left
	mounts, files := read(t, "/proc/self/mountinfo"), descriptors(t)
	for _, script := range []string{"true", "sleep " + w + " &", "exit 1", "kill -9 $$", "setsid sleep " + w + " & sleep " + w} {
		spec := s.shell(script)
		spec.Limits.Wall = 300 * time.Millisecond
		s.run(spec)
	}
	_, _ = s.box.Run(context.Background(), s.spec("missing"))
	if err := s.box.Close(); err != nil {
		t.Error(err)
	}
	if read(t, "/proc/self/mountinfo") != mounts {
		t.Error("mounts are left")
	}
	if n := descriptors(t); n > files {
		t.Errorf("%d descriptors are left", n-files)
	}
	if alive(t, w) || children(t) > 0 {
		t.Error("processes are left")
	}
	if err := m.Close(); err != nil {
		t.Errorf("control groups are left: %v", err)
	}
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func children(t *testing.T) int {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	n := 0
	for _, f := range files {
		b, _ := os.ReadFile(f)
		n += len(strings.Fields(string(b)))
	}
	return n
}

// TestNodeKilled kills a node while an action runs, and proves that nothing of the action survives.
func TestNodeKilled(t *testing.T) {
	if dir := os.Getenv("BUILDMESH_TEST_NODE"); dir != "" {
		box, _, err := Probe(context.Background(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = box.Run(context.Background(), Spec{
			Scratch: filepath.Join(dir, "run"), UID: -1, GID: -1, Env: []string{"PATH=/bin"},
			Arguments: []string{"sh", "-c", "setsid sleep $0 & sleep $0", os.Getenv("BUILDMESH_TEST_WORD")},
		})
		return
	}
	s, w := newStand(t), word(t)
	node := exec.Command("/proc/self/exe", "-test.run", "^TestNodeKilled$")
	node.Env = append(os.Environ(), "BUILDMESH_TEST_NODE="+s.dir, "BUILDMESH_TEST_WORD="+w)
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return alive(t, w) })
	_ = node.Process.Kill()
	_ = node.Wait()
	waitFor(t, func() bool { return !alive(t, w) })
}
