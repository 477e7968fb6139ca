package place

import (
	"fmt"
	"testing"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// BenchmarkExplain is what saying how a peer was chosen costs a decision, beside one that does not say it.
func BenchmarkExplain(b *testing.B) {
	for _, peers := range []int{5, 50, 200} {
		for _, explain := range []bool{false, true} {
			b.Run(fmt.Sprintf("peers=%d/explain=%t", peers, explain), func(b *testing.B) {
				l := newLab(b, Options{Explain: explain})
				for n := range peers {
					l.peer(byte(n + 1))
				}
				work := uint64(0)
				for b.Loop() {
					work++
					l.Submit(l.now, Work{ID: work, Action: digest.SHA256.Of([]byte{byte(work)}), Mnemonic: "CppCompile"})
					for _, d := range l.Decisions() {
						if r, is := d.(*Reserve); is {
							l.Granted(l.now, r.Try)
							l.Finished(l.now, r.Try, Sample{})
						}
					}
				}
			})
		}
	}
}
