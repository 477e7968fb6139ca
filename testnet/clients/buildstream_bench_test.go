//go:build unix

package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkBuildStream builds the project from nothing, with new clients, in turn on a new node and on a new
// buildbox-casd, and reports the medians and their ratio: once with a base of busybox alone, once with one of 8,000 files
// and 300 MB. A build from the action cache follows each. Run it with -benchtime=3x for three rounds.
func BenchmarkBuildStream(b *testing.B) {
	for _, size := range []string{"small", "large"} {
		b.Run(size, func(b *testing.B) {
			stream := Find(b).BuildStream(b)
			// What an element may expect is the node's affair; its host name, for one, is another one there.
			if err := os.WriteFile(filepath.Join(stream.project, "files", "src", "contract.sh"), nil, 0o644); err != nil {
				b.Fatal(err)
			}
			if size == "large" {
				enlarge(b, filepath.Join(stream.project, "files", "rootfs"), 8000, 300_000_000)
			}
			took := map[string][]time.Duration{}
			for b.Loop() {
				node := stream.Place.StartNode(b)
				timeStream(b, took, "node", stream, node.BuildStream())
				node.Stop()
				casd, stop := stream.Place.StartCasd(b)
				timeStream(b, took, "casd", stream, casd)
				stop()
			}
			b.ReportMetric(0, "ns/op")
			for _, what := range []string{"clean", "hits"} {
				ours, theirs := median(took["node "+what]), median(took["casd "+what])
				b.ReportMetric(ours.Seconds(), what+"-s")
				b.ReportMetric(theirs.Seconds(), what+"-casd-s")
				b.ReportMetric(ours.Seconds()/theirs.Seconds(), what+"/casd")
			}
		})
	}
}

// timeStream builds with a new client, and then with another one, and notes both times.
func timeStream(b *testing.B, took map[string][]time.Duration, name string, stream *BuildStream, server Server) {
	b.Helper()
	for _, what := range []string{"clean", "hits"} {
		client := stream.NewClient(b, server, Execution)
		s := client.Run(b, "build", "use.bst")
		if s.Exit != 0 || s.Queues["Build"] != 3 {
			b.Fatalf("%s, %s: exit %d\n%s", name, what, s.Exit, s.Tail())
		}
		b.Logf("%s, %s: %.2f s", name, what, s.Elapsed.Seconds())
		took[name+" "+what] = append(took[name+" "+what], s.Elapsed)
		if err := os.RemoveAll(client.dir); err != nil {
			b.Fatal(err)
		}
	}
}

// enlarge adds so many files of so many bytes together to a root file system.
func enlarge(b *testing.B, rootfs string, files, bytes int) {
	b.Helper()
	for i := range files {
		name, content := filler(i, files, bytes)
		path := filepath.Join(rootfs, name)
		if i%fillerFiles == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// fillerFiles is how many files share a directory.
const fillerFiles = 40

// filler is one of so many files of so many bytes together: few are large and many small, as in a real root.
func filler(i, files, bytes int) (name, content string) {
	size := bytes / files
	if i%10 == 0 {
		size *= 7
	} else {
		size /= 3
	}
	return fmt.Sprintf("usr/lib/p%d/f%d", i/fillerFiles, i), strings.Repeat(fmt.Sprintf("%015d\n", i), size/16+1)[:size]
}
