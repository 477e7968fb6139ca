//go:build unix

package clients

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// foreign is an element that the node itself does not offer to build: only a bot of that architecture gets it.
const foreign = `kind: manual
build-depends:
- base.bst
sandbox:
  build-os: linux
  build-arch: x86-32
config:
  install-commands:
  - mkdir -p "%{install-root}/out"
  - cat /etc/passwd >"%{install-root}/out/said" 2>/dev/null || echo "no machine here" >"%{install-root}/out/said"
`

// A stock buildbox-worker lends its machine to the node, which gives it what the node itself cannot run: an element of
// another architecture.
func TestWorkerBuildStream(t *testing.T) {
	stream := Find(t).BuildStream(t)
	element := filepath.Join(stream.project, "elements", "foreign.bst")
	if err := os.WriteFile(element, []byte(foreign), 0o644); err != nil {
		t.Fatal(err)
	}
	node := stream.Place.StartNode(t, "BUILDMESH_EXEC_BOTS=true")
	client := stream.NewClient(t, node.BuildStream(), Execution)
	if s := client.Run(t, "build", "foreign.bst"); s.Exit == 0 || !strings.Contains(s.Output, "ISA") {
		t.Fatalf("without a bot: exit %d\n%s", s.Exit, s.Tail())
	}
	stream.Place.StartWorker(t, node, "other", "buildbox-run-bubblewrap", "OSFamily=linux", "ISA=x86-64", "ISA=x86-32")
	Eventually(t, 20*time.Second, "the bot opens its session", func() error {
		if node.Metric("buildmesh_requests_total", "CreateBotSession") == 0 {
			return errors.New("no session")
		}
		return nil
	})
	built(t, "with a bot", client.Run(t, "build", "foreign.bst"), map[string]int{"Build": 1})
	dir := client.Checkout(t, "foreign.bst")
	if said, err := os.ReadFile(filepath.Join(dir, "out", "said")); err != nil || string(said) != "no machine here\n" {
		t.Errorf("%v: %q", err, said)
	}
}

// A bot is killed in the middle of a Bazel action; another one gets the action, and the build succeeds.
func TestWorkerKilled(t *testing.T) {
	bazel := Find(t).Bazel7(t)
	build := `genrule(name = "patient", outs = ["patient.txt"],
    cmd = "echo begun >>/w/begun; while [ ! -e /w/go ]; do sleep 0.1; done; cp /w/go $@")`
	if err := os.MkdirAll(filepath.Join(bazel.Project(), "bots"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bazel.Project(), "bots", "BUILD"), []byte(build), 0o644); err != nil {
		t.Fatal(err)
	}
	node := bazel.Place.StartNode(t, "BUILDMESH_EXEC_BOTS=true")
	properties := []string{"OSFamily=linux", "Pool=bots", "InputRootAbsolutePath=*"}
	first := bazel.Place.StartWorker(t, node, "first", "buildbox-run-hosttools", properties...)
	Eventually(t, 20*time.Second, "the bot opens its session", func() error {
		if node.Metric("buildmesh_requests_total", "CreateBotSession") == 0 {
			return errors.New("no session")
		}
		return nil
	})
	base := bazel.NewOutputBase(t)
	running := base.Start(t.Context(), "build", append(node.Remote(), "--remote_default_exec_properties=Pool=bots", "//bots:patient")...)
	begun := func(times int) func() error {
		return func() error {
			data, err := os.ReadFile(filepath.Join(bazel.Place.Dir, "begun"))
			if n := strings.Count(string(data), "begun"); n != times {
				return errors.Join(err, errors.New("not yet: "+running.Output()))
			}
			return nil
		}
	}
	Eventually(t, 90*time.Second, "the action runs with the first bot", begun(1))
	first.Kill()
	bazel.Place.StartWorker(t, node, "second", "buildbox-run-hosttools", properties...)
	Eventually(t, 60*time.Second, "the action runs with the second bot", begun(2))
	if err := os.WriteFile(filepath.Join(bazel.Place.Dir, "go"), []byte("went\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	succeed(t, "with the second bot", running.Wait(t))
	if out, err := base.Output("k8-fastbuild/bin/bots/patient.txt"); err != nil || string(out) != "went\n" {
		t.Errorf("%v: %q", err, out)
	}
	again := bazel.NewOutputBase(t).Run(t, "build", append(node.Remote(), "--remote_default_exec_properties=Pool=bots", "//bots:patient")...)
	succeed(t, "again", again)
	if again.Processes["remote cache hit"] != 1 {
		t.Errorf("a bot's result was not found again: %v", again.Processes)
	}
}
