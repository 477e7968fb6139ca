package lookup_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/lookup"
)

// BenchmarkStoppedPeer has sixteen callers look up 20,000 results: first what none of eight members has, then what only one member
// is said to have that stopped, as SIGSTOP would stop it, and that none gets therefore (BenchmarkStopped of testnet/chaos: the
// same with processes). Run it:
//
//	go test ./dht/lookup -run '^$' -bench StoppedPeer -benchtime 1x
func BenchmarkStoppedPeer(b *testing.B) {
	const callers, n = 16, 20_000
	w := newWorld(b, 8, mesh, nil)
	w.connected(b)
	stopped, seeker := w.nodes[7], w.nodes[0]
	misses := func(kind string) []time.Duration {
		took := make([]time.Duration, n)
		var looking sync.WaitGroup
		for c := range callers {
			looking.Go(func() {
				for i := c; i < n; i += callers {
					action := actionOf(fmt.Sprint(kind, i))
					began := time.Now()
					if _, err := seeker.lookup.Find(b.Context(), lookup.Query{Action: action, Roots: roots}); err == nil {
						b.Error("found what nobody can give")
						return
					}
					took[i] = time.Since(began)
				}
			})
		}
		looking.Wait()
		return took
	}
	var awake, asleep []time.Duration
	round := 0
	for b.Loop() {
		round++
		awake = append(awake, misses(fmt.Sprint("nobody's ", round))...)
		kind := fmt.Sprint("claimed ", round)
		keys := make([]cid.Key, n)
		for i := range keys {
			keys[i] = keyer.Result(actionOf(fmt.Sprint(kind, i)), root)
		}
		if err := stopped.summary.Publisher.Add(keys); err != nil {
			b.Fatal(err)
		}
		w.settle(b, 7, 0, actionOf(fmt.Sprint(kind, n-1)))
		stopped.Freeze()
		asleep = append(asleep, misses(kind)...)
		stopped.Thaw()
	}
	slices.Sort(awake)
	slices.Sort(asleep)
	p99 := len(asleep) * 99 / 100
	b.ReportMetric(asleep[p99].Seconds()*1000, "p99-ms")
	b.ReportMetric(asleep[len(asleep)-1].Seconds()*1000, "max-ms")
	b.ReportMetric(asleep[p99].Seconds()/awake[p99].Seconds(), "stopped/awake")
}
