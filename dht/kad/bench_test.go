package kad

import (
	"fmt"
	"testing"

	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
)

// BenchmarkMiss looks up one key nobody has in a DHT of 20 on loopback; its alternatives are BenchmarkMiss of package summary
// and BenchmarkFind of package onehop.
func BenchmarkMiss(b *testing.B) {
	all := join(b, 20)
	keys := locatetest.Keys("absent", 10_000)
	for i := 0; b.Loop(); i++ {
		at := i % len(keys)
		if _, err := all[0].Find(b.Context(), keys[at:at+1]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAnnounce has one node of eight tell the others of 10,000 keys (BenchmarkAnnounce of testnet/chaos: what that costs
// processes). Run it:
//
//	go test ./dht/kad -run '^$' -bench Announce -benchtime 3x
func BenchmarkAnnounce(b *testing.B) {
	all := join(b, 8)
	for round := 0; b.Loop(); round++ {
		if err := all[0].Announce(b.Context(), locatetest.Keys(fmt.Sprint(round), 10_000)); err != nil {
			b.Fatal(err)
		}
		settle(b, all)
	}
}
