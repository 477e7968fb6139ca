package transport

import (
	"fmt"
	"testing"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// TestTurnedOutMeanwhile turns a peer out, and drops it, right after each of the times at which the gate lets it in while both
// kinds of connection are opened: none of them stays.
func TestTurnedOutMeanwhile(t *testing.T) {
	for _, dialing := range []bool{true, false} {
		for yes := 1; yes <= 5; yes++ {
			t.Run(fmt.Sprintf("dialing=%v/%d", dialing, yes), func(t *testing.T) {
				a, b := started(t, Options{}), started(t, Options{})
				meet(a, b)
				turning, other := b, a
				if dialing {
					turning, other = a, b
				}
				turning.gate.kind, turning.gate.out = yes, func(id peer.ID) { turning.Drop(id) }
				if err := calls(t.Context(), a, b); err == nil {
					t.Errorf("who was turned out was answered on both connections")
				}
				if !settled(func() bool { return !turning.Connected(other.id) && !turning.open.has(other.id) }) {
					t.Errorf("a connection stays: control %v, bulk %v", turning.Connected(other.id), turning.open.has(other.id))
				}
			})
		}
	}
}

// has reports whether a bulk connection with a peer is open.
func (o *opened) has(id peer.ID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.conns[id]) > 0
}
