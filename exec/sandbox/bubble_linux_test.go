package sandbox

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBubblewrap takes tier A away and proves that bubblewrap keeps the same promises.
func TestBubblewrap(t *testing.T) {
	s := newStandWith(t, Options{Best: TierB})
	if !s.box.Tier().Guests() {
		t.Error("tier B keeps guests out")
	}
	w := word(t)
	r := s.run(s.shell("cat input.txt; rm -f input.txt; echo changed > input.txt; test $(id -u) = 1000 && echo user; setsid sleep " + w + " & exit 3"))
	if got := read(t, r.StdoutPath); got != "input\nuser\n" || r.ExitCode != 3 || !r.Merged || r.Reason != Exited {
		t.Errorf("%+v %q %s", r, got, read(t, r.StderrPath))
	}
	if read(t, filepath.Join(s.lower, "input.txt")) != "input\n" || read(t, filepath.Join(r.Upper, "input.txt")) != "changed\n" {
		t.Error("inputs are not a private copy")
	}
	for name, script := range map[string]string{
		"the node's files": "ls " + s.dir, "capabilities": "grep -E 'Cap(Prm|Eff|Bnd|Amb):' /proc/self/status | grep -qv 0000000000000000",
		"new namespaces": "unshare -Ur true", "a network": "tail -n +3 /proc/net/dev | grep -v lo:", "writing tools": "echo x > /usr/bin/evil",
		"writing the root": "mkdir /new", "no filter": "grep -q 'Seccomp:.*0' /proc/self/status",
	} {
		if r := s.run(s.shell(script)); r.ExitCode == 0 {
			t.Errorf("%s: allowed; %s", name, read(t, r.StdoutPath))
		}
	}
	spec := s.shell("setsid sleep " + w + " & sleep " + w)
	spec.Limits.Wall = 300 * time.Millisecond
	if r := s.run(spec); r.Reason != TimedOut {
		t.Errorf("%+v", r)
	}
	if alive(t, w) {
		t.Error("processes are left")
	}
	var command *CommandError
	if _, err := s.box.Run(t.Context(), s.spec("missing-program")); !errors.As(err, &command) {
		t.Errorf("%v", err)
	}
}

func TestBubbleArguments(t *testing.T) {
	spec := Spec{UID: -1, GID: 5, ReadOnly: []string{"sources"}, Writable: []string{"sources/out"}}
	tools := findTools(nil)
	args := strings.Join(bubbleArguments(tools, "/state", &spec, "/state/run/upper"), " ")
	for _, want := range []string{"--unshare-net", "--uid 1000 --gid 5", "--bind /state/run/upper /build", "--ro-bind /state/run/upper/sources /build/sources --bind /state/run/upper/sources/out /build/sources/out", "--as-pid-1"} {
		if !strings.Contains(args, want) {
			t.Errorf("no %q in %s", want, args)
		}
	}
	spec.Network = true
	if slices.Contains(bubbleArguments(tools, "/state", &spec, "/x"), "--unshare-net") {
		t.Error("network is cut off although it is asked for")
	}
}
