package node

import (
	"slices"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// BenchmarkOverhead runs a trivial action here and at a member on the same machine, in turns of some each, and gives the
// medians and their difference in milliseconds. An iteration is one action of either kind.
//
//	go test ./node -run '^$' -bench Overhead -benchtime 200x
func BenchmarkOverhead(b *testing.B) {
	p := newPair(b)
	p.free()
	d := p.ana.store(b, &repb.Action{
		CommandDigest:   p.ana.store(b, &repb.Command{Arguments: []string{"/bin/true"}}).Proto(),
		InputRootDigest: p.ana.store(b, &repb.Directory{}).Proto(), DoNotCache: true,
	})
	timed := func(worker string) float64 {
		began := time.Now()
		r := p.ana.executed(b, d)
		took := time.Since(began)
		if r.Status.GetCode() != 0 || r.Result.GetExecutionMetadata().GetWorker() != worker {
			b.Fatalf("%v", r)
		}
		return took.Seconds() * 1000
	}
	const turn = 20
	var here, there []float64
	for range (b.N + turn - 1) / turn {
		timed("ana") // what is cold in a turn is not counted
		for range turn {
			here = append(here, timed("ana"))
		}
		p.occupy(b)
		timed("ben")
		for range turn {
			there = append(there, timed("ben"))
		}
		p.free()
	}
	slices.Sort(here)
	slices.Sort(there)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(here[len(here)/2], "here-ms")
	b.ReportMetric(there[len(there)/2], "there-ms")
	b.ReportMetric(there[len(there)/2]-here[len(here)/2], "overhead-ms")
}

// BenchmarkCancel cancels actions that run at a member and gives the longest time until nothing of one was left there, in
// milliseconds.
//
//	go test ./node -run '^$' -bench Cancel -benchtime 20x
func BenchmarkCancel(b *testing.B) {
	p := newPair(b)
	d := p.ana.store(b, &repb.Action{
		CommandDigest:   p.ana.store(b, &repb.Command{Arguments: []string{"/bin/sleep", "997"}}).Proto(),
		InputRootDigest: p.ana.store(b, &repb.Directory{}).Proto(), DoNotCache: true,
	})
	var worst time.Duration
	for b.Loop() {
		stream := p.ana.opened(b, d)
		eventually(b, "ben runs it", func() bool { return p.ben.lending.guests.Load() == 1 })
		began := time.Now()
		for _, f := range p.ana.machine.flights.List() {
			if f.Request().Action == d {
				f.Cancel()
			}
		}
		eventually(b, "ben is free", func() bool { return p.ben.lending.guests.Load() == 0 })
		worst = max(worst, time.Since(began))
		response(b, stream)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(worst.Seconds()*1000, "worst-ms")
	p.free()
}
