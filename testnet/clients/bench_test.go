//go:build unix

package clients

import (
	"slices"
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
				flags := append(node.Remote(), "--jobs=4") // two run, two are on their way
				remote = append(remote, timeBuild(b, bazel, flags))
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

// timeBuild builds from a new output base and returns how long it took after analysis.
func timeBuild(b *testing.B, bazel *Bazel, flags []string) time.Duration {
	b.Helper()
	base := bazel.NewOutputBase(b)
	analysed := base.Run(b, "build", append(slices.Clone(flags), "--nobuild", "//app:all")...)
	if analysed.Exit != 0 {
		b.Fatalf("analysis: exit %d\n%s", analysed.Exit, analysed.Tail())
	}
	built := base.Run(b, "build", append(slices.Clone(flags), "//app:all")...)
	if built.Exit != 0 {
		b.Fatalf("build: exit %d\n%s", built.Exit, built.Tail())
	}
	b.Logf("%.1f s: %v", built.Elapsed.Seconds(), built.Processes)
	base.shutdown(b)
	return built.Elapsed
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}
