package clients

import (
	"testing"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenarios"
)

// labEndpoint is where every node of a laboratory answers on its own machine.
const labEndpoint = "grpc://127.0.0.1:8980"

// What one node of a mesh has built, no other node builds again: a clean build there is made of cache hits only. It is
// so too when the node that built has gone, because what was fetched is kept.
func TestMesh(t *testing.T) {
	bazel := Find(t).Bazel4(t)
	binary, err := lab.Build(t.Context(), bazel.Place.Dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(lab.Options{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes() {
				t.Logf("%s said:\n%s", n.Name, n.Log())
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := scenarios.Mesh(t.Context(), l, 5, "", t.Logf); err != nil {
		t.Fatal(err)
	}
	build := func(node string) Build {
		made := bazel.On(l.Node(node).Begin).NewOutputBase(t).Run(t, "build", append(RemoteAt(labEndpoint), "//app:grep")...)
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
