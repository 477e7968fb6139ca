package clients

import (
	"path/filepath"
	"testing"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenarios"
)

// LabEndpoint is where every node of a laboratory answers on its own machine.
const LabEndpoint = "grpc://" + labAddress

const labAddress = "127.0.0.1:8980"

// LabServer is LabEndpoint as BuildStream uses it.
func LabServer() Server { return Server{Address: labAddress, Instance: "bst"} }

// Mesh makes one of so many nodes that run in this place, n1 and so on; it ends with the test.
func (p Place) Mesh(t testing.TB, count int, machine lab.Machine) *lab.Lab {
	t.Helper()
	binary, err := lab.Build(t.Context(), p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	options := lab.Options{Binary: binary, Dir: p.Dir}
	if p.root != "" {
		options.Enter = []string{filepath.Join(p.kit.here, "enter"), p.root, p.Dir, filepath.Join(p.kit.dir, "src")}
		options.Inside = p.Inside
	}
	l, err := lab.New(options)
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
	if err := scenarios.Mesh(t.Context(), l, count, machine, t.Logf); err != nil {
		t.Fatal(err)
	}
	return l
}
