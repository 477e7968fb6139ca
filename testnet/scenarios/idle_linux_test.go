package scenarios

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

var (
	nodes = flag.Int("nodes", 30, "of the mesh that BenchmarkIdleMesh measures")
	idle  = flag.Duration("idle", 30*time.Second, "for how long")
	calm  = flag.Duration("calm", 30*time.Second, "how long a mesh that has just been made comes to rest before it is measured")
)

// BenchmarkIdleMesh measures what a node costs that has nothing to do: the share of a core and the bytes a second it
// sends and receives, and its memory, at the median and of the one that costs most. It also tells how long a mesh of
// that size takes to know itself after the last node has joined. Run it once:
//
//	go test ./testnet/scenarios -run '^$' -bench IdleMesh -benchtime 1x -nodes 30
//
// More than 31 nodes of a lab cannot all know each other: Linux keeps 1,024 neighbours for all namespaces together. See
// BenchmarkIdleOffice for more.
func BenchmarkIdleMesh(b *testing.B) {
	if err := lab.Lacking(); err != nil {
		b.Skip(err)
	}
	built, err := programs()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		measureIdle(b, built.node)
	}
}

// measureIdle makes a mesh, lets it come to rest and measures.
func measureIdle(b *testing.B, binary string) {
	l, err := lab.New(lab.Options{Binary: binary})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	}()
	if err := Mesh(b.Context(), l, *nodes, lab.Machine{}, b.Logf); err != nil {
		b.Fatal(err)
	}
	measureUsage(b, func() []lab.Usage { return usages(b, l) })
}

// measureUsage lets a mesh come to rest and measures its nodes for a while.
func measureUsage(b *testing.B, usages func() []lab.Usage) {
	b.Helper()
	if err := pass(b.Context(), *calm); err != nil {
		b.Fatal(err)
	}
	before := usages()
	begun := time.Now()
	if err := pass(b.Context(), *idle); err != nil {
		b.Fatal(err)
	}
	after, seconds := usages(), time.Since(begun).Seconds()
	var core, sent, received, memory []float64
	for i, u := range after {
		core = append(core, 100*(u.CPU-before[i].CPU).Seconds()/seconds)
		sent = append(sent, float64(u.Sent-before[i].Sent)/seconds)
		received = append(received, float64(u.Received-before[i].Received)/seconds)
		memory = append(memory, float64(u.Memory)/(1<<20))
	}
	b.ReportMetric(0, "ns/op")
	for unit, values := range map[string][]float64{"core-%": core, "sent-B/s": sent, "received-B/s": received, "MiB": memory} {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], unit)
		b.ReportMetric(values[len(values)-1], "max-"+unit)
	}
}

// usages are what all nodes have cost so far.
func usages(b *testing.B, l *lab.Lab) []lab.Usage {
	b.Helper()
	var out []lab.Usage
	for _, n := range l.Nodes() {
		u, err := n.Usage()
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}
