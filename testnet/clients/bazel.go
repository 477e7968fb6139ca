//go:build unix

package clients

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Bazel is one installed version together with what it needs to build the project offline.
type Bazel struct {
	Place   Place
	Version string
	flags   []string // common flags
	minimal []string // flags for builds without the bytes
	project string   // the project's directory, as seen from outside
}

// Build is what one call of Bazel said.
type Build struct {
	Exit      int
	Output    string
	Elapsed   time.Duration
	Processes map[string]int // by how they ran: "remote", "remote cache hit", "linux-sandbox", "internal"
}

// Bazel4 is Debian 12's own Bazel 4.2.3, which speaks version 2.0 of the protocol only.
func (k Kit) Bazel4(t testing.TB) *Bazel {
	t.Helper()
	place := k.Host(t)
	b := &Bazel{Place: place, Version: "4.2.3", project: place.Project(t)}
	b.minimal = []string{"--experimental_remote_download_outputs=minimal", "--experimental_inmemory_jdeps_files",
		"--experimental_inmemory_dotd_files"}
	b.override(map[string]string{
		"rules_cc":              filepath.Join(k.dir, "rules_cc"),
		"rules_java":            "/usr/share/bazel/rules/java",
		"rules_proto":           "/usr/share/bazel/rules/proto",
		"bazel_skylib":          "/usr/share/bazel/tools/skylib",
		"platforms":             "/usr/share/bazel/tools/platforms",
		"remote_coverage_tools": filepath.Join(k.dir, "coverage"),
	})
	return b
}

// Bazel7 is the Debian testing root's Bazel 7.7.1.
func (k Kit) Bazel7(t testing.TB) *Bazel {
	t.Helper()
	place := k.Root(t)
	b := &Bazel{Place: place, Version: "7.7.1", project: place.Project(t)}
	b.minimal = []string{"--remote_download_minimal"}
	b.flags = append(b.flags, "--noenable_bzlmod", "--enable_workspace", "--cxxopt=-include", "--cxxopt=cstdint")
	b.override(map[string]string{
		"rules_cc":       "/usr/share/bazel/rules/cc",
		"rules_java":     "/usr/share/bazel/rules/java",
		"rules_proto":    "/usr/share/bazel/rules/proto",
		"rules_python":   "/usr/share/bazel/rules/python",
		"rules_license":  "/usr/share/bazel/rules/license",
		"bazel_skylib":   "/usr/share/bazel/tools/skylib",
		"bazel_features": "/usr/share/bazel/tools/features",
		"platforms":      "/usr/share/bazel/tools/platforms",
	})
	return b
}

// override points external repositories at what lies on the disk, the project's sources included.
func (b *Bazel) override(repositories map[string]string) {
	repositories["com_google_absl"] = b.Place.Source("abseil")
	repositories["com_google_googletest"] = b.Place.Source("googletest")
	for name, path := range repositories {
		b.flags = append(b.flags, "--override_repository="+name+"="+path)
	}
	b.flags = append(b.flags, "--cxxopt=-std=c++17", "--host_cxxopt=-std=c++17",
		"--experimental_convenience_symlinks=ignore", "--color=no", "--curses=no", "--show_progress_rate_limit=5")
}

// Minimal are this version's flags for builds that do not download what nobody asked for, added to others.
func (b *Bazel) Minimal(others []string) []string { return append(slices.Clone(others), b.minimal...) }

// Project is the directory of the project that is built, as seen from outside.
func (b *Bazel) Project() string { return b.project }

// On is the same Bazel, started by begin: on a machine of a laboratory, say. 127.0.0.1 is then that machine.
func (b *Bazel) On(begin func(*exec.Cmd) error) *Bazel {
	there := *b
	there.Place.begin = begin
	return &there
}

// OutputBase is a fresh client: an output base with a Bazel server of its own.
type OutputBase struct {
	bazel *Bazel
	dir   string
}

// NewOutputBase makes a fresh client whose server is shut down when the test ends.
func (b *Bazel) NewOutputBase(t testing.TB) *OutputBase {
	t.Helper()
	dir, err := os.MkdirTemp(b.Place.Dir, "output-base-")
	if err != nil {
		t.Fatal(err)
	}
	o := &OutputBase{bazel: b, dir: dir}
	t.Cleanup(func() { o.shutdown(t) })
	return o
}

// shutdown ends the server by the process id that it wrote, and waits for it.
func (o *OutputBase) shutdown(t testing.TB) {
	pid := o.serverPID(t)
	if pid == 0 {
		return // never started
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	Eventually(t, 10*time.Second, "Bazel's server ends", func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// serverPID is the process id that the server wrote; 0: never started.
func (o *OutputBase) serverPID(t testing.TB) int {
	text, err := os.ReadFile(filepath.Join(o.dir, "server", "server.pid.txt"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Errorf("server.pid.txt: %v", err)
		return 0
	}
	return pid
}

// Dir is the output base, as seen from outside.
func (o *OutputBase) Dir() string { return o.dir }

// Output reads a file below the workspace's bazel-out, like k8-fastbuild/bin/app/grep.
func (o *OutputBase) Output(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(o.dir, "execroot", "smoke", "bazel-out", path))
}

// Start begins one Bazel command; finish it with Wait.
func (o *OutputBase) Start(ctx context.Context, command string, args ...string) *Running {
	b := o.bazel
	all := []string{"--output_base=" + b.Place.Inside(o.dir), "--host_jvm_args=-Xmx1g", "--max_idle_secs=300",
		"--nohome_rc", command}
	all = append(append(all, b.flags...), args...)
	r := &Running{cmd: b.Place.Command(ctx, b.project, "bazel", all...), begun: time.Now()}
	r.cmd.Env = append(os.Environ(), "HOME="+b.Place.Inside(b.Place.Dir))
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.cmd.Cancel = func() error { return r.cmd.Process.Signal(syscall.SIGINT) }
	r.cmd.WaitDelay = 30 * time.Second
	r.err = b.Place.start(r.cmd)
	return r
}

// Run calls Bazel and waits, at most ten minutes.
func (o *OutputBase) Run(t testing.TB, command string, args ...string) Build {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return o.Start(ctx, command, args...).Wait(t)
}

// Running is a Bazel command that has not ended yet.
type Running struct {
	cmd   *exec.Cmd
	out   lockedBuffer
	err   error
	begun time.Time
}

// Interrupt does what Ctrl-C does.
func (r *Running) Interrupt() error { return r.cmd.Process.Signal(syscall.SIGINT) }

// Output is what Bazel has printed so far.
func (r *Running) Output() string { return r.out.String() }

// Wait returns what Bazel said when it has ended.
func (r *Running) Wait(t testing.TB) Build {
	t.Helper()
	if r.err != nil {
		t.Fatalf("start bazel: %v", r.err)
	}
	_ = r.cmd.Wait()
	build := Build{Exit: r.cmd.ProcessState.ExitCode(), Output: r.out.String(), Elapsed: time.Since(r.begun)}
	build.Processes = parseProcesses(build.Output)
	return build
}

// processLine is Bazel's summary, like "INFO: 205 processes: 101 remote cache hit, 3 internal, 101 remote."
var processLine = regexp.MustCompile(`(?m)^INFO: \d+ process(?:es)?: (.*)\.$`)

func parseProcesses(output string) map[string]int {
	counts := map[string]int{}
	for _, line := range processLine.FindAllStringSubmatch(output, -1) {
		for part := range strings.SplitSeq(line[1], ", ") {
			number, kind, _ := strings.Cut(part, " ")
			if n, err := strconv.Atoi(number); err == nil {
				counts[kind] += n
			}
		}
	}
	return counts
}

// Remote are the flags that make Bazel execute on the node, and nowhere else.
func (n *Node) Remote() []string { return RemoteAt(n.Endpoint) }

// RemoteAt are the flags that make Bazel execute at an endpoint, and nowhere else.
func RemoteAt(endpoint string) []string {
	return []string{"--remote_executor=" + endpoint, "--spawn_strategy=remote", "--strategy=TestRunner=remote", "--jobs=8",
		"--remote_timeout=60"}
}

// Cache are the flags that make Bazel use the node as a cache only.
func (n *Node) Cache() []string {
	return []string{"--remote_cache=" + n.Endpoint, "--spawn_strategy=sandboxed", "--remote_timeout=60"}
}

// Tail is the end of a long output, for messages.
func (b Build) Tail() string { return tail(b.Output, 40) }

// tail is the last so many lines of a text.
func tail(text string, most int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
