package run

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/collect"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/exec/stage"
)

func TestMain(m *testing.M) {
	sandbox.Main() // when this binary is started as init of a sandbox
	os.Exit(m.Run())
}

// newRealStand is a stand with the sandbox of this machine.
func newRealStand(t *testing.T, opt Options) *stand {
	t.Helper()
	s := &stand{t: t, dir: t.TempDir(), blobs: newFakeBlobs(), observer: &observer{}}
	for d := s.dir; d != "/" && d != filepath.Clean(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // the guest must be able to pass
			t.Fatal(err)
		}
	}
	box, report, err := sandbox.Probe(t.Context(), sandbox.Options{Dir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	if box.Tier() != sandbox.TierA {
		t.Skipf("no sandbox of tier A here: %+v", report.Findings)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	staging := stage.Options{SampleEvery: 1, OnIncident: func(i stage.Incident) { t.Errorf("an action changed its inputs: %+v", i) }}
	if uid, gid, need := box.Owner(); need {
		staging.Owner = &stage.Owner{UID: uid, GID: gid}
	}
	s.open(box, opt, staging)
	return s
}

// shell is an action that runs a script.
func (s *stand) shell(script string, input map[string]string, outputs ...string) *action.Action {
	a := s.action(input, outputs...)
	a.Arguments, a.Env = []string{"/bin/sh", "-c", script}, []string{"PATH=/usr/bin:/bin"}
	return a
}

func (s *stand) must(a *action.Action) *flight.Outcome {
	s.t.Helper()
	outcome, err := s.runner.Execute(s.t.Context(), a, s.observer)
	if err != nil {
		s.t.Fatal(err)
	}
	if code := outcome.Result.ExitCode; code != 0 {
		s.t.Fatalf("exit code %d, stderr %s", code, s.blobs.get(outcome.Result.StderrDigest))
	}
	return outcome
}

// files lists the output directory at path as name and content.
func (s *stand) files(r *repb.ActionResult, path string) []string {
	s.t.Helper()
	i := slices.IndexFunc(r.OutputDirectories, func(o *repb.OutputDirectory) bool { return o.Path == path })
	if i < 0 {
		s.t.Fatalf("no output directory %q in %v", path, r)
	}
	m := &repb.Tree{}
	if err := proto.Unmarshal([]byte(s.blobs.get(r.OutputDirectories[i].TreeDigest)), m); err != nil {
		s.t.Fatal(err)
	}
	dirs := map[string]*repb.Directory{}
	for _, c := range m.Children {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
		if err != nil {
			s.t.Fatal(err)
		}
		dirs[s.blobs.put(data).Hex()] = c
	}
	var list []string
	var walk func(at string, d *repb.Directory)
	walk = func(at string, d *repb.Directory) {
		for _, f := range d.Files {
			list = append(list, at+f.Name+"="+s.blobs.get(f.Digest))
		}
		for _, l := range d.Symlinks {
			list = append(list, at+l.Name+"->"+l.Target)
		}
		for _, sub := range d.Directories {
			list = append(list, at+sub.Name+"/")
			walk(at+sub.Name+"/", dirs[sub.Digest.Hash])
		}
	}
	walk("", m.Root)
	slices.Sort(list)
	return list
}

func TestCompile(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no gcc here")
	}
	s := newRealStand(t, Options{})
	a := s.action(map[string]string{
		"src/hello.c":     "#include <stdio.h>\n#include \"hello.h\"\nint main(void) { puts(HELLO); return 0; }\n",
		"include/hello.h": "#define HELLO \"hello\"\n",
	}, "out/bin/hello")
	a.Arguments = []string{"gcc", "-Iinclude", "-o", "out/bin/hello", "src/hello.c"}
	a.Env = []string{"PATH=/usr/bin:/bin"}
	r := s.must(a).Result
	if len(r.OutputFiles) != 1 || !r.OutputFiles[0].IsExecutable || !strings.HasPrefix(s.blobs.get(r.OutputFiles[0].Digest), "\x7fELF") {
		t.Fatalf("outputs %v", r.OutputFiles)
	}
	run := s.shell("./hello", map[string]string{})
	run.InputRoot = s.blobs.directory(t, map[string]string{"hello": "#!/bin/sh\necho staged"})
	if out := s.blobs.get(s.must(run).Result.StdoutDigest); out != "staged\n" {
		t.Errorf("a staged script printed %q", out)
	}
}

// What an action does to its inputs shows in its outputs and nowhere else: the same inputs serve the
// next action, and every layer is compared with its digests afterwards.
func TestActionMistreatsItsInputs(t *testing.T) {
	s := newRealStand(t, Options{})
	large := strings.Repeat("large ", 20_000)
	input := map[string]string{"d/a": "a", "d/b": "b", "d/e/f": "f", "d/e/g": "g", "d/large": large, "d/run": "#!/bin/sh", "k/x": "x"}
	all := []string{"a=a", "b=b", "e/", "e/f=f", "e/g=g", "large=" + large, "run=#!/bin/sh"}
	without := func(drop ...string) (rest []string) {
		for _, f := range all {
			if !slices.Contains(drop, f) {
				rest = append(rest, f)
			}
		}
		return rest
	}
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"nothing", "true", all},
		{"deletes a file", "rm -f d/a", without("a=a")},
		{"deletes a directory", "rm -rf d/e", without("e/", "e/f=f", "e/g=g")},
		{"replaces a directory", "rm -rf d/e; mkdir d/e; echo -n new >d/e/n", append(without("e/f=f", "e/g=g"), "e/n=new")},
		{"renames a directory", "mv d/e d/r", append(without("e/", "e/f=f", "e/g=g"), "r/", "r/f=f", "r/g=g")},
		{"deletes and makes again", "rm d/a; echo -n A >d/a", append(without("a=a"), "a=A")},
		{"writes into an input", "chmod u+w d/a && echo -n A >d/a", append(without("a=a"), "a=A")},
		{"writes into a large input", "chmod u+w d/large && echo -n L >d/large", append(without("large="+large), "large=L")},
		{"file to directory", "rm d/a; mkdir d/a", append(without("a=a"), "a/")},
		{"directory to link", "rm -rf d/e; ln -s ../k d/e", append(without("e/", "e/f=f", "e/g=g"), "e->../k")},
		{"takes all rights away", "find d -depth -exec chmod 000 '{}' ';'", all},
		{"moves everything out and in", "mv d d2; mv d2 d", all},
		{"hard link", "ln d/a d/l", append(slices.Clone(all), "l=a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := *s
			s.t = t
			got := s.files(s.must(s.shell("set -e; "+c.script, input, "d")).Result, "d")
			want := slices.Clone(c.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got  %.300q\nwant %.300q", got, want)
			}
		})
	}
}

func TestEscapes(t *testing.T) {
	s := newRealStand(t, Options{})
	for name, script := range map[string]string{
		"through a link":   "ln -s /etc out",
		"through dots":     "ln -s ../../../../etc out",
		"through a chain":  "ln -s mid out; ln -s /etc mid",
		"through a parent": "mkdir -p x; ln -s ../.. x/up; ln -s x/up/etc out",
	} {
		outcome, err := s.runner.Execute(t.Context(), s.shell("rmdir out 2>/dev/null; "+script, nil, "out/passwd"), s.observer)
		if _, ok := errors.AsType[*collect.OutputError](err); !ok {
			t.Errorf("%s: outcome %v, error %v", name, outcome, err)
		}
	}
}

func TestRealLimits(t *testing.T) {
	s := newRealStand(t, Options{Output: 1 << 20})
	slow := s.shell("echo before; sleep 60", nil)
	slow.Timeout = 3 * time.Second // long enough for the echo wherever this runs
	outcome, err := s.runner.Execute(t.Context(), slow, s.observer)
	if !errors.Is(err, context.DeadlineExceeded) || outcome == nil || s.blobs.get(outcome.Result.StdoutDigest) != "before\n" {
		t.Errorf("timeout: outcome %v, error %v", outcome, err)
	}
	_, err = s.runner.Execute(t.Context(), s.shell("yes", nil), s.observer)
	if !isResource(Output, 1<<20)(err) {
		t.Errorf("endless output: %v", err)
	}
	_, err = s.runner.Execute(t.Context(), s.shell("mkfifo o", nil, "o"), s.observer)
	if _, ok := errors.AsType[*collect.OutputError](err); !ok {
		t.Errorf("a pipe as output: %v", err)
	}
	missing := s.shell("", nil)
	missing.Arguments = []string{"no-such-program"}
	if _, err = s.runner.Execute(t.Context(), missing, s.observer); err == nil {
		t.Error("a program that does not exist ran")
	} else if _, ok := errors.AsType[*sandbox.CommandError](err); !ok {
		t.Errorf("no such program: %v", err)
	}
}
