package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

// What one node of a mesh has built, no other node builds again: a clean build there is made of cache hits only. It is
// so too when the node that built has gone, because what was fetched is kept.
func TestMesh(t *testing.T) {
	bazel := Find(t).Bazel7(t)
	l := bazel.Place.Mesh(t, 5, lab.Machine{})
	build := func(node string) Build {
		made := bazel.On(l.Node(node).Begin).NewOutputBase(t).Run(t, "build", append(RemoteAt(LabEndpoint), "//app:grep")...)
		succeed(t, "clean build on "+node, made)
		return made
	}
	first := build("n1")
	for _, node := range []string{"n2", "n3"} {
		again := build(node)
		if again.Processes["remote"] != 0 || again.Processes["remote cache hit"] != first.Processes["remote"] {
			t.Errorf("%s built %v after n1 built %v", node, again.Processes, first.Processes)
		}
		if node == "n2" {
			if err := l.Node("n1").Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// BenchmarkMeshHits builds the C++ project from nothing on nodes of a mesh that do not know it, after the first one has
// built it, and the same against a bazel-remote that all share, each first on every other node, and reports the medians and
// their ratio. Every action has to be a hit. It needs bazel-remote, which it gets as `make bench` does. Four nodes each build
// once a round; for three rounds:
//
//	go test ./testnet/clients -run '^$' -bench MeshHits -benchtime 3x -timeout 1h
func BenchmarkMeshHits(b *testing.B) {
	kit := Find(b)
	bazel := kit.Bazel7(b)
	l := bazel.Place.Mesh(b, 5, lab.Machine{Settings: []string{"BUILDMESH_STORE_REPLICAS=1"}}) // nothing is copied ahead
	server, err := l.Add("server", lab.Machine{})
	if err != nil {
		b.Fatal(err)
	}
	shared := []string{"--remote_cache=grpc://" + serveBazelRemote(b, kit, bazel.Place, server), "--spawn_strategy=sandboxed", "--remote_timeout=60"}
	n1 := bazel.On(l.Node("n1").Begin)
	caches := [][]string{RemoteAt(LabEndpoint), shared}
	took := make([][]time.Duration, len(caches))
	for _, flags := range caches {
		timeBuild(b, n1, flags)
	}
	for round := 0; b.Loop(); round++ {
		for i, n := range l.Nodes()[1:5] {
			if round > 0 {
				empty(b, n)
			}
			for turn := range caches {
				which := (round + i + turn) % len(caches)
				took[which] = append(took[which], timeHits(b, bazel.On(n.Begin), caches[which]))
			}
		}
	}
	ours, theirs := median(took[0]), median(took[1])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds(), "mesh-s")
	b.ReportMetric(theirs.Seconds(), "bazel-remote-s")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "mesh/bazel-remote")
}

// empty has a node start anew without anything that it had stored, and see the mesh.
func empty(b *testing.B, n *lab.Node) {
	b.Helper()
	if err := n.Stop(); err != nil {
		b.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.Dir(), "cache")); err != nil {
		b.Fatal(err)
	}
	if err := n.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	Eventually(b, time.Minute, n.Name+" sees the mesh", func() error {
		status, err := n.Status(b.Context())
		if err == nil && status.GetMesh().GetAlive() < 4 {
			err = fmt.Errorf("it sees %d others", status.GetMesh().GetAlive())
		}
		return err
	})
}

// timeHits is timeBuild for a build that must run nothing.
func timeHits(b *testing.B, bazel *Bazel, flags []string) time.Duration {
	b.Helper()
	took, processes := timedBuild(b, bazel, flags, "//app:all")
	if n := processes["remote"] + processes["linux-sandbox"]; n > 0 {
		b.Errorf("%d actions ran again: %v", n, processes)
	}
	return took
}

// serveBazelRemote runs one on a machine of the laboratory until the benchmark ends, and gives its address.
func serveBazelRemote(b *testing.B, kit Kit, place Place, machine *lab.Node) string {
	b.Helper()
	address := fmt.Sprintf("%s:9092", machine.Address())
	cmd := exec.Command(installBazelRemote(b, kit, place), "--dir", filepath.Join(place.Dir, "bazel-remote"), "--max_size", "20",
		"--grpc_address", address, "--http_address", fmt.Sprintf("%s:9090", machine.Address()), "--access_log_level", "none")
	cmd.Stderr = os.Stderr
	if err := machine.Begin(cmd); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	Eventually(b, 30*time.Second, "bazel-remote listens", func() error {
		conn, err := machine.Dial(b.Context(), "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return address
}
