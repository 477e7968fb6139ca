//go:build unix

package clients

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// eachBazel runs a test once with every installed version.
func eachBazel(t *testing.T, test func(t *testing.T, b *Bazel)) {
	kit := Find(t)
	t.Run("Bazel4.2.3", func(t *testing.T) { test(t, kit.Bazel4(t)) })
	t.Run("Bazel7.7.1", func(t *testing.T) { test(t, kit.Bazel7(t)) })
}

// succeed fails the test with the build's last words unless it succeeded.
func succeed(t *testing.T, what string, b Build) {
	t.Helper()
	if b.Exit != 0 {
		t.Fatalf("%s: exit %d\n%s", what, b.Exit, b.Tail())
	}
	t.Logf("%s: %.1f s, %v", what, b.Elapsed.Seconds(), b.Processes)
}

// A real C++ project of hundreds of actions is built and tested on the node, and then, by a client that has nothing,
// comes from its cache whole: first with every byte, then without the bytes.
func TestCleanBuildThenOnlyHits(t *testing.T) {
	eachBazel(t, func(t *testing.T, b *Bazel) {
		node := b.Place.StartNode(t)
		first := b.NewOutputBase(t)
		clean := first.Run(t, "test", append(node.Remote(), "//app:all")...)
		succeed(t, "clean build", clean)
		if n := clean.Processes["remote"]; n < 200 {
			t.Errorf("%d actions ran on the node, want at least 200: %v", n, clean.Processes)
		}
		binary, err := first.Output("k8-fastbuild/bin/app/grep")
		if err != nil {
			t.Fatal(err)
		}
		checkTestOutputs(t, first)

		second := b.NewOutputBase(t)
		hits := second.Run(t, "test", append(node.Remote(), "//app:all")...)
		succeed(t, "again from a new output base", hits)
		onlyHits(t, hits, clean)
		if again, err := second.Output("k8-fastbuild/bin/app/grep"); err != nil || !bytes.Equal(again, binary) {
			t.Errorf("the cached binary differs from the built one (error %v, %d and %d bytes)", err, len(again), len(binary))
		}
		checkTestOutputs(t, second)

		third := b.NewOutputBase(t)
		minimal := third.Run(t, "build", append(b.Minimal(node.Remote()), "//app:all")...)
		succeed(t, "again without the bytes", minimal)
		onlyHits(t, minimal, clean)
		if _, err := third.Output("k8-fastbuild/bin/app/grep"); err == nil {
			t.Error("a build without the bytes downloaded a binary that nobody asked for")
		}
	})
}

// onlyHits fails the test when an action ran although an earlier build had run it.
func onlyHits(t *testing.T, hits, clean Build) {
	t.Helper()
	if n := hits.Processes["remote"] + hits.Processes["linux-sandbox"] + hits.Processes["local"]; n != 0 {
		t.Errorf("%d actions ran again: %v\n%s", n, hits.Processes, hits.Tail())
	}
	if got, want := hits.Processes["remote cache hit"], clean.Processes["remote"]*9/10; got < want {
		t.Errorf("%d cache hits, want at least %d: %v", got, want, hits.Processes)
	}
}

// checkTestOutputs looks for what the test wrote into TEST_UNDECLARED_OUTPUTS_DIR, and for its log.
func checkTestOutputs(t *testing.T, o *OutputBase) {
	t.Helper()
	if log, err := o.Output("k8-fastbuild/testlogs/app/grep_test/test.log"); err != nil || !bytes.Contains(log, []byte("PASSED")) {
		t.Errorf("test.log: %v: %s", err, log)
	}
	data, err := o.Output("k8-fastbuild/testlogs/app/grep_test/test.outputs/outputs.zip")
	if err != nil {
		t.Error(err)
		return
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Error(err)
		return
	}
	file, err := archive.Open("said.txt")
	if err != nil {
		t.Error(err)
		return
	}
	if said, err := io.ReadAll(file); err != nil || string(said) != "said by the test\n" {
		t.Errorf("said.txt: %v: %q", err, said)
	}
}

// A cache without executions: what one output base built in its own sandbox, another does not build again.
func TestCacheOnly(t *testing.T) {
	eachBazel(t, func(t *testing.T, b *Bazel) {
		node := b.Place.StartNode(t)
		clean := b.NewOutputBase(t).Run(t, "build", append(node.Cache(), "//app:grep")...)
		succeed(t, "clean build in Bazel's own sandbox", clean)
		hits := b.NewOutputBase(t).Run(t, "build", append(node.Cache(), "//app:grep")...)
		succeed(t, "again from a new output base", hits)
		if n := hits.Processes["linux-sandbox"]; n != 0 {
			t.Errorf("%d actions were built again: %v", n, hits.Processes)
		}
	})
}

// A failing action is reported with its words and its exit code, and fails again, because it is not cached.
func TestFailingAction(t *testing.T) {
	eachBazel(t, func(t *testing.T, b *Bazel) {
		node := b.Place.StartNode(t)
		for attempt := range 2 {
			build := b.NewOutputBase(t).Run(t, "build", append(node.Remote(), "//odd:fails")...)
			if build.Exit != 1 {
				t.Errorf("attempt %d: Bazel ends with %d, want 1\n%s", attempt, build.Exit, build.Tail())
			}
			for _, want := range []string{"this action fails on purpose", "Exit 7"} {
				if !strings.Contains(build.Output, want) {
					t.Errorf("attempt %d: %q is not in Bazel's output\n%s", attempt, want, build.Tail())
				}
			}
		}
	})
}

// A build that is interrupted leaves no process of its action behind.
func TestCancelledBuild(t *testing.T) {
	eachBazel(t, func(t *testing.T, b *Bazel) {
		node := b.Place.StartNode(t)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		running := b.NewOutputBase(t).Start(ctx, "build", append(node.Remote(), "//odd:waits")...)
		Eventually(t, 2*time.Minute, "the action runs", func() error {
			if len(sleepers(t)) == 0 {
				return fmt.Errorf("no process of it yet; Bazel says %s", running.Output())
			}
			return nil
		})
		if err := running.Interrupt(); err != nil {
			t.Fatal(err)
		}
		build := running.Wait(t)
		if build.Exit != 8 {
			t.Errorf("Bazel ends with %d, want 8 (interrupted)\n%s", build.Exit, build.Tail())
		}
		Eventually(t, 90*time.Second, "the action's processes end", func() error {
			if left := sleepers(t); len(left) > 0 {
				return fmt.Errorf("processes %v live", left)
			}
			return nil
		})
	})
}

// sleepers are the processes of the target //odd:waits, found by the argument that marks them.
func sleepers(t *testing.T) []string {
	t.Helper()
	return processes(t, "sleep\x0086399.25\x00")
}

// processes are those with exactly this command line, each argument with a zero byte at its end.
func processes(t *testing.T, command string) []string {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, path := range found {
		if line, err := os.ReadFile(path); err == nil && string(line) == command {
			left = append(left, filepath.Base(filepath.Dir(path)))
		}
	}
	return left
}

// A node that is killed in the middle of a build and started again costs seconds, not the build; what it had
// acknowledged before is still there after.
func TestNodeKilledMidBuild(t *testing.T) {
	eachBazel(t, func(t *testing.T, b *Bazel) {
		node := b.Place.StartNode(t)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		flags := append(b.Minimal(node.Remote()), "--remote_retries=20")
		running := b.NewOutputBase(t).Start(ctx, "build", append(flags, "//odd:step11")...)
		Eventually(t, 2*time.Minute, "some actions are done", func() error {
			if done := node.Metric("buildmesh_actions_total"); done < 3 {
				return fmt.Errorf("%v actions done; Bazel says %s", done, running.Output())
			}
			return nil
		})
		node.Kill()
		node.Start()
		succeed(t, "build over a node that was killed", running.Wait(t))

		again := b.NewOutputBase(t).Run(t, "build", append(node.Remote(), "//odd:step11")...)
		succeed(t, "again from a new output base", again)
		if n := again.Processes["remote"]; n != 0 {
			t.Errorf("%d acknowledged results were lost: %v", n, again.Processes)
		}
	})
}

func TestParseProcesses(t *testing.T) {
	got := parseProcesses("INFO: x\nINFO: 205 processes: 101 remote cache hit, 3 internal, 101 remote.\nINFO: 1 process: 1 internal.\n")
	want := map[string]int{"remote cache hit": 101, "internal": 4, "remote": 101}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSumMetric(t *testing.T) {
	text := "# HELP a_total x\na_total{outcome=\"ok\"} 3\na_total{outcome=\"failed\"} 4\na_total_more 9\nb 2.5\n"
	if got := sumMetric(text, "a_total", nil); got != 7 {
		t.Errorf("sum is %v, want 7", got)
	}
	if got := sumMetric(text, "a_total", []string{`outcome="failed"`}); got != 4 {
		t.Errorf("labelled sum is %v, want 4", got)
	}
	if got := sumMetric(text, "b", nil); got != 2.5 {
		t.Errorf("plain sample is %v, want 2.5", got)
	}
}
