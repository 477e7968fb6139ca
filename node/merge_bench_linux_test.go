package node

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/exec/merge"
)

// BenchmarkMerging gives what exec/merge.Worth weighs. One iteration is two actions that nobody else runs, in turns of some each:
// one of a kind that is known to be too short to be told of, and one that is told of. Then, ten times, both members are asked
// for an action of 300 ms, one 50 ms after the other.
//
//	short-ms  median of those that are not told of
//	told-ms   median of those that are
//	ratio     of the two
//	cpu-ms    of processor that telling takes at both members together, for one action
//	after-ms  median of how much later than the one that ran it the other one has the result
//
//	go test ./node -run '^$' -bench Merging -benchtime 400x
func BenchmarkMerging(b *testing.B) {
	p := newPair(b)
	p.free()
	count := 0
	timed := func(mnemonic string) float64 {
		count++
		d := p.ana.store(b, &repb.Action{
			CommandDigest:   p.ana.store(b, &repb.Command{Arguments: []string{"/bin/true", fmt.Sprint(count)}}).Proto(),
			InputRootDigest: p.ana.store(b, &repb.Directory{}).Proto(),
		})
		began := time.Now()
		stream, err := repb.NewExecutionClient(p.ana.conn).Execute(saying(b, &repb.RequestMetadata{ActionMnemonic: mnemonic}), &repb.ExecuteRequest{ActionDigest: d.Proto()})
		if err != nil {
			b.Fatal(err)
		}
		r := response(b, stream)
		took := time.Since(began)
		if r.Status.GetCode() != 0 || r.CachedResult || r.Result.GetExecutionMetadata().GetWorker() != "ana" {
			b.Fatalf("%v", r)
		}
		return took.Seconds() * 1000
	}
	for range 20 {
		timed("Short")
	}
	if e := p.ana.machine.leasing.initiator.Estimate("Short"); e.Samples == 0 || e.Median >= merge.Worth {
		b.Fatalf("short actions are thought to take %s", e.Median)
	}
	var short, told, after []float64
	var cpu time.Duration
	const turn = 20
	for range (b.N + turn - 1) / turn {
		begin := processor(b)
		for range turn {
			short = append(short, timed("Short"))
		}
		between := processor(b)
		for range turn {
			told = append(told, timed(fmt.Sprint("Unknown", count)))
		}
		cpu += processor(b) - between - (between - begin)
	}
	for i := range 10 {
		after = append(after, p.lag(b, fmt.Sprint("sleep 0.3; echo ", i, " > out")))
	}
	median := func(all []float64) float64 {
		slices.Sort(all)
		return all[len(all)/2]
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(short), "short-ms")
	b.ReportMetric(median(told), "told-ms")
	b.ReportMetric(median(told)/median(short), "ratio")
	b.ReportMetric(cpu.Seconds()*1000/float64(len(told)), "cpu-ms")
	b.ReportMetric(median(after), "after-ms")
}

// processor is how much of it this process has had.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// lag is how many milliseconds after ben, who runs an action, ana has its result.
func (p *pair) lag(b *testing.B, script string) float64 {
	d := p.ana.action(b, script)
	p.ben.action(b, script)
	first := p.ben.opened(b, d)
	time.Sleep(50 * time.Millisecond) // it is a measurement
	later := p.ana.opened(b, d)
	response(b, first)
	ended := time.Now()
	if r := response(b, later); r.Message != "merged with ben's" {
		b.Fatalf("%v", r)
	}
	return time.Since(ended).Seconds() * 1000
}
