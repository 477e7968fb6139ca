package onehop

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// R is how many members a key belongs to.
const R = 3

// Settled is for how long a member must have been alive before keys belong to it.
const Settled = 45 * time.Second

// ring is the members keys may belong to, this node among them. It is never changed.
type ring struct {
	ids   []peer.ID // sorted
	seeds []uint64
}

// settled adds to ids whom keys belong to as the roster is now, in no order. As long as nobody has settled everybody counts.
func settled(ids []peer.ID, self peer.ID, members []locate.Member) []peer.ID {
	ids = append(ids, self)
	for _, m := range members {
		if m.Alive >= Settled {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 1 {
		for _, m := range members {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// newRing makes the ring of some members.
func newRing(ids []peer.ID) ring {
	r := ring{ids: slices.Clone(ids), seeds: make([]uint64, len(ids))}
	slices.SortFunc(r.ids, func(a, b peer.ID) int { return slices.Compare(a[:], b[:]) })
	for i, id := range r.ids {
		for at := 0; at < len(id); at += 8 {
			r.seeds[i] = mix(r.seeds[i] ^ binary.LittleEndian.Uint64(id[at:]))
		}
	}
	return r
}

// equal reports whether two rings have the same members.
func (r ring) equal(other ring) bool { return slices.Equal(r.ids, other.ids) }

// replicas gives the members a key belongs to, the first one first.
func (r ring) replicas(k cid.Key) []peer.ID {
	var best [R]int
	var scores [R]uint64
	n := 0
	fingerprint := k.Fingerprint()
	for i, seed := range r.seeds {
		score := mix(fingerprint ^ seed)
		at := n
		for at > 0 && scores[at-1] < score {
			at--
		}
		if at == R {
			continue
		}
		n = min(n+1, R)
		copy(best[at+1:n], best[at:])
		copy(scores[at+1:n], scores[at:])
		best[at], scores[at] = i, score
	}
	ids := make([]peer.ID, n)
	for i := range ids {
		ids[i] = r.ids[best[i]]
	}
	return ids
}

// mix spreads 64 bits over 64 bits, one to one (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
