package place

import (
	"slices"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// rootsKept is how many input roots, and peers for each, locality remembers.
const (
	rootsKept = 4096
	peersKept = 8
)

// roots remembers which peers ran with an input root lately.
type roots struct {
	holders map[digest.Digest][]peer.ID // the latest last
	order   []digest.Digest             // ring, the oldest at next
	next    int
}

func newRoots() *roots { return &roots{holders: map[digest.Digest][]peer.ID{}} }

// note adds a holder of root.
func (r *roots) note(root digest.Digest, id peer.ID) {
	if root.IsZero() || root.IsEmpty() {
		return
	}
	held, found := r.holders[root]
	if !found {
		if len(r.order) < rootsKept {
			r.order = append(r.order, root)
		} else {
			delete(r.holders, r.order[r.next])
			r.order[r.next] = root
			r.next = (r.next + 1) % rootsKept
		}
	}
	if slices.Contains(held, id) {
		return
	}
	if len(held) == peersKept {
		held = held[1:]
	}
	r.holders[root] = append(held, id)
}
