package onehop_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/dht/onehop"
)

// BenchmarkKeeper asks who keeps one key in a site of 250; changing/same is how many times as long it takes when the members are
// others at each call. Run it:
//
//	go test ./dht/onehop -run '^$' -bench Keeper
func BenchmarkKeeper(b *testing.B) {
	ids := locatetest.IDs(251)
	var members []locate.Member
	for _, id := range ids[1:] {
		members = append(members, locate.Member{ID: id, Alive: time.Hour})
	}
	fewer := slices.Clone(members[1:])
	now := members
	l := onehop.New(ids[0], onehop.NewIndex(), locate.Only(func() []locate.Member { return now }), nil)
	keys := locatetest.Keys("kept", 1024)
	each := func(changed func(i int) []locate.Member) time.Duration {
		began := time.Now()
		for i, k := range keys {
			now = changed(i)
			l.Keeper(k)
		}
		return time.Since(began)
	}
	var same, changing time.Duration
	for b.Loop() {
		same += each(func(int) []locate.Member { return members })
		changing += each(func(i int) []locate.Member { return [][]locate.Member{members, fewer}[i%2] })
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(same.Seconds()*1e6/float64(b.N*len(keys)), "us/key")
	b.ReportMetric(changing.Seconds()/same.Seconds(), "changing/same")
}

// BenchmarkFind looks up one key nobody has, and a thousand, in a mesh of 20.
func BenchmarkFind(b *testing.B) {
	nodes := join(b, 20, false)
	keys := locatetest.Keys("absent", 1000)
	for name, n := range map[string]int{"keys=1": 1, "keys=1000": 1000} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				nodes[0].locator.Find(b.Context(), keys[:n])
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "lookups/s")
		})
	}
}
