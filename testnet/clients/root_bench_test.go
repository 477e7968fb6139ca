//go:build unix

package clients

import (
	"fmt"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// BenchmarkRoot runs elements and integrations on a base of 8,000 files and 300 MB, in turn on the node and on
// buildbox-casd, and reports medians: how long the node stages and captures by its own account, and what the client
// waits for on either side. Run it with -benchtime=20x.
func BenchmarkRoot(b *testing.B) {
	stream := Find(b).BuildStream(b)
	casd, _ := stream.Place.StartCasd(b)
	servers := []*remote{dial(b, stream.Place.StartNode(b).BuildStream()), dial(b, casd)}
	var bases []*base
	for _, r := range servers {
		f := r.newBase(stream.busybox, "sh", "cat", "true")
		for i := range 8000 {
			f.file(filler(i, 8000, 300_000_000))
		}
		bases = append(bases, f)
	}
	var staged, captured []time.Duration
	waited := map[string][]time.Duration{}
	run := func(round int) {
		for i, r := range servers {
			f := bases[i].clone()
			name := fmt.Sprintf("round%d", round)
			whole := f.root()
			f.prepare(name)
			f.file("buildstream/greeting/"+name+"/source", name)
			element, elementTook := r.execute(element(name, "cat source >/buildstream-install/product"), f.root())
			integration, integrationTook := r.execute(integration("true "+name), whole)
			r.succeeded(element)
			unchanged(b, r.succeeded(integration), whole)
			b.Logf("round %d, server %d: element %v, integration %v", round, i, elementTook, integrationTook)
			if round < 0 {
				continue
			}
			waited[fmt.Sprint("element", i)] = append(waited[fmt.Sprint("element", i)], elementTook)
			waited[fmt.Sprint("integration", i)] = append(waited[fmt.Sprint("integration", i)], integrationTook)
			if i == 0 {
				m := element.Result.ExecutionMetadata
				staged = append(staged, m.InputFetchCompletedTimestamp.AsTime().Sub(m.InputFetchStartTimestamp.AsTime()))
				m = integration.Result.ExecutionMetadata
				captured = append(captured, m.OutputUploadCompletedTimestamp.AsTime().Sub(m.OutputUploadStartTimestamp.AsTime()))
			}
		}
	}
	run(-1) // the first one stages the base
	for round := 0; b.Loop(); round++ {
		run(round)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(staged).Seconds()*1e3, "stage-ms")
	b.ReportMetric(median(captured).Seconds()*1e3, "capture-ms")
	for _, kind := range []string{"element", "integration"} {
		ours, theirs := median(waited[kind+"0"]), median(waited[kind+"1"])
		b.ReportMetric(ours.Seconds()*1e3, kind+"-ms")
		b.ReportMetric(theirs.Seconds()*1e3, kind+"-casd-ms")
		b.ReportMetric(ours.Seconds()/theirs.Seconds(), kind+"/casd")
	}
}

// unchanged fails the benchmark unless the captured root is the one that was sent.
func unchanged(b *testing.B, result *repb.ActionResult, root *repb.Digest) {
	b.Helper()
	if len(result.OutputDirectories) != 1 || result.OutputDirectories[0].RootDirectoryDigest.GetHash() != root.Hash {
		b.Fatalf("captured %v, want %v", result.OutputDirectories, root)
	}
}
