//go:build unix

package clients

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkRealBuild builds the C++ project from nothing, in turn with Bazel's own sandbox and on the node, with as many
// actions at once on either side, and reports the medians and their ratio. Bazel's servers are warm: each build is
// analysed before the clock starts. Run it with -benchtime=3x for three rounds.
func BenchmarkRealBuild(b *testing.B) {
	kit := Find(b)
	for _, version := range []struct {
		name string
		make func(testing.TB) *Bazel
	}{{"Bazel4.2.3", kit.Bazel4}, {"Bazel7.7.1", kit.Bazel7}} {
		b.Run(version.name, func(b *testing.B) {
			bazel := version.make(b)
			var local, remote, hits []time.Duration
			for b.Loop() {
				local = append(local, timeBuild(b, bazel, []string{"--spawn_strategy=sandboxed", "--jobs=2"}))
				node := bazel.Place.StartNode(b)
				flags := append(node.Remote(), "--jobs=3") // two run, one is on its way
				remote = append(remote, timeBuild(b, bazel, flags))
				own, below := processorTime(b, node.PID())
				b.Logf("processor time: %v of the node, %v of its actions", own, below)
				hits = append(hits, timeBuild(b, bazel, flags))
				node.Stop()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(local).Seconds(), "local-s")
			b.ReportMetric(median(remote).Seconds(), "remote-s")
			b.ReportMetric(median(hits).Seconds(), "hits-s")
			b.ReportMetric(median(remote).Seconds()/median(local).Seconds(), "remote/local")
		})
	}
}

// BenchmarkFullHits builds the C++ project from nothing, every action from the cache, in turn with this node and with
// bazel-remote as the cache, each filled before the clock starts, and reports the medians and their ratio. It needs
// bazel-remote, which it gets as `make bench` does. Run it with -benchtime=5x for five rounds.
func BenchmarkFullHits(b *testing.B) {
	kit := Find(b)
	bazel := kit.Bazel7(b)
	node := bazel.Place.StartNode(b)
	other := startBazelRemote(b, kit, bazel.Place)
	caches := map[string][]string{
		"node": node.Cache(), "bazel-remote": {"--remote_cache=grpc://" + other, "--spawn_strategy=sandboxed", "--remote_timeout=60"},
	}
	for _, flags := range caches {
		timeBuild(b, bazel, flags)
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for name, flags := range caches {
			took[name] = append(took[name], timeBuild(b, bazel, flags))
		}
	}
	ours, theirs := median(took["node"]), median(took["bazel-remote"])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds(), "hits-s")
	b.ReportMetric(theirs.Seconds(), "bazel-remote-s")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "hits/bazel-remote")
}

// installBazelRemote gives the path of one.
func installBazelRemote(b *testing.B, kit Kit, place Place) string {
	b.Helper()
	bench := exec.Command("go", "run", "./testnet/bench", "-install", place.Dir)
	bench.Dir, bench.Stderr = filepath.Join(kit.here, "..", ".."), os.Stderr
	path, err := bench.Output()
	if err != nil {
		b.Fatalf("get bazel-remote: %v", err)
	}
	return strings.TrimSpace(string(path))
}

// startBazelRemote runs one with an empty cache until the benchmark ends, and gives its address.
func startBazelRemote(b *testing.B, kit Kit, place Place) string {
	b.Helper()
	grpc, http := freePort(b), freePort(b)
	cmd := exec.Command(installBazelRemote(b, kit, place), "--dir", filepath.Join(place.Dir, "bazel-remote"), "--max_size", "20",
		"--grpc_address", grpc, "--http_address", http, "--access_log_level", "none")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	Eventually(b, 30*time.Second, "bazel-remote listens", func() error {
		conn, err := net.DialTimeout("tcp", grpc, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return grpc
}

// timeBuild builds from a new output base and returns how long it took after analysis.
func timeBuild(b *testing.B, bazel *Bazel, flags []string) time.Duration {
	b.Helper()
	took, _ := timedBuild(b, bazel, flags, "//app:all")
	return took
}

// timedBuild is timeBuild of one target that also tells how the actions ran.
func timedBuild(b *testing.B, bazel *Bazel, flags []string, target string) (time.Duration, map[string]int) {
	b.Helper()
	base := bazel.NewOutputBase(b)
	analysed := base.Run(b, "build", append(slices.Clone(flags), "--nobuild", target)...)
	if analysed.Exit != 0 {
		b.Fatalf("analysis: exit %d\n%s", analysed.Exit, analysed.Tail())
	}
	built := base.Run(b, "build", append(slices.Clone(flags), target)...)
	if built.Exit != 0 {
		b.Fatalf("build: exit %d\n%s", built.Exit, built.Tail())
	}
	own, below := processorTime(b, base.serverPID(b))
	b.Logf("%.1f s: %v; processor time: %v of Bazel, %v of what it ran", built.Elapsed.Seconds(), built.Processes, own, below)
	base.shutdown(b)
	return built.Elapsed, built.Processes
}

// processorTime is what a process and the ended processes below it have used, user and system together.
func processorTime(b *testing.B, pid int) (own, below time.Duration) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before it may hold spaces
	fields := strings.Fields(rest)
	ticks := func(first int) (sum time.Duration) {
		for _, field := range fields[first : first+2] {
			n, err := strconv.Atoi(field)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100 on every Linux
		}
		return sum
	}
	return ticks(11), ticks(13)
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}
