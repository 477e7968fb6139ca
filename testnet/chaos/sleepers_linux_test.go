package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenarios"
)

var (
	machines = flag.Int("nodes", 20, "of the mesh that BenchmarkSleepers measures")
	slots    = flag.Int("slots", 4, "of each node")
	sleepers = flag.Int("actions", 1000, "that sleep for a second each")
	lost     = flag.Float64("lost", 0, "share of the nodes that are put to sleep at a random moment")
)

// BenchmarkSleepers measures how long one-second sleeping actions take that one node is asked for, beside the ideal: all
// slots of the mesh busy from begin to end. Run it once:
//
//	go test ./testnet/chaos -run '^$' -bench Sleepers -benchtime 1x -nodes 20 -slots 4 -actions 1000 -lost 0.2
func BenchmarkSleepers(b *testing.B) {
	if err := lab.Lacking(); err != nil {
		b.Skip(err)
	}
	names := make([]string, *sleepers)
	for b.Loop() {
		// All machines share the processors of this one: what one node takes is no owner at work on another.
		l := mesh(b, *machines, lab.Machine{Settings: []string{fmt.Sprintf("BUILDMESH_EXEC_CORES=%d", *slots), "BUILDMESH_LEND_CPU=0"}})
		load, err := NewLoad(l.Node("n1"))
		if err != nil {
			b.Fatal(err)
		}
		for i := range names {
			names[i] = fmt.Sprint(i)
		}
		ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
		sleep(ctx, calm)
		spent := usage(b, l)
		rounds := (*sleepers + *machines**slots - 1) / (*machines * *slots)
		lose(ctx, b, l, int(*lost*float64(*machines)), time.Duration(rounds)*time.Second)
		begun := time.Now()
		outcome, err := load.Run(ctx, l.Dir(), "sleep 1", names)
		took := time.Since(begun).Seconds()
		cancel()
		load.Close()
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("ran: %s", outcome)
		ideal := float64(*sleepers) / float64(*machines**slots)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(took, "s")
		b.ReportMetric(ideal, "ideal-s")
		b.ReportMetric(took/ideal, "times-ideal")
		if *lost == 0 {
			b.ReportMetric((usage(b, l)-spent).Seconds()*1000/float64(*sleepers), "node-ms/action")
		}
	}
}

// calm is how long a new mesh is left alone before it is measured: joining costs more than any action.
const calm = 15 * time.Second

// usage is the processor time all running nodes have taken, without their actions.
func usage(b *testing.B, l *lab.Lab) (all time.Duration) {
	for _, n := range l.Running() {
		u, err := n.Usage()
		if err != nil {
			b.Fatal(err)
		}
		all += u.CPU
	}
	return all
}

// lose puts nodes to sleep, each at a random moment; never the first one.
func lose(ctx context.Context, b *testing.B, l *lab.Lab, count int, within time.Duration) {
	others := l.Nodes()[1:]
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	for _, n := range others[:min(count, len(others))] {
		moment := rand.N(within)
		go func() { // ends with ctx, or after the moment
			if sleep(ctx, moment) {
				b.Logf("%s stops after %v", n.Name, moment)
				_ = n.Sleep()
			}
		}()
	}
}

// mesh makes one of so many nodes on equal machines, n1 and so on, that ends with the test.
func mesh(t testing.TB, count int, machine lab.Machine) *lab.Lab {
	t.Helper()
	l := machinery(t)
	if err := scenarios.Mesh(t.Context(), l, count, machine, t.Logf); err != nil {
		t.Fatal(err)
	}
	return l
}

// machinery makes a lab without machines that ends with the test.
func machinery(t testing.TB) *lab.Lab {
	t.Helper()
	binary, err := lab.Build(t.Context(), scratch)
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
	return l
}

// scratch is where programs are built; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if scratch, err = os.MkdirTemp("", "chaos-"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(status)
}
