//go:build unix

package clients

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var recordTo = flag.String("record", "", "file that BenchmarkRecord writes Bazel's execution log to")

// BenchmarkRecord builds the C++ project through a node once and keeps Bazel's execution log, from which `go run
// ./testnet/sim -record LOG` makes the simulator's trace.
func BenchmarkRecord(b *testing.B) {
	if *recordTo == "" {
		b.Skip("records only with -record FILE")
	}
	bazel := Find(b).Bazel7(b)
	node := bazel.Place.StartNode(b)
	log := filepath.Join(bazel.Place.Dir, "execution.log")
	build := bazel.NewOutputBase(b).Run(b, "test", append(node.Remote(), "//app:all",
		"--jobs=2", "--execution_log_json_file="+bazel.Place.Inside(log))...)
	if build.Exit != 0 {
		b.Fatalf("exit %d\n%s", build.Exit, build.Tail())
	}
	in, err := os.Open(log)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(*recordTo)
	if err != nil {
		b.Fatal(err)
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(build.Processes["remote"]), "actions")
}
