package receipt

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Policy says whose receipts a node believes. The zero value believes only its own.
type Policy struct {
	// Agree is how many executors must agree: 1 is the whole mesh's word, k a quorum, 0 nobody's but
	// this node's own.
	Agree int
}

// maxQuorum bounds k.
const maxQuorum = 16

// ParsePolicy reads "self", "mesh" or "quorum K" with K from 2 to 16.
func ParsePolicy(s string) (Policy, error) {
	switch s {
	case "self":
		return Policy{}, nil
	case "mesh":
		return Policy{Agree: 1}, nil
	}
	if k, found := strings.CutPrefix(s, "quorum "); found {
		if n, err := strconv.Atoi(strings.TrimSpace(k)); err == nil && n >= 2 && n <= maxQuorum {
			return Policy{Agree: n}, nil
		}
	}
	return Policy{}, fmt.Errorf("trust policy %q is not self, mesh or quorum K with K from 2 to %d", s, maxQuorum)
}

// String is the form ParsePolicy reads.
func (p Policy) String() string {
	switch p.Agree {
	case 0:
		return "self"
	case 1:
		return "mesh"
	}
	return fmt.Sprintf("quorum %d", p.Agree)
}

// Choose gives the receipt to believe of those about one action, nil for none: this node's own if there
// is one, else the first that enough distinct executors agree with.
func (p Policy) Choose(self peer.ID, receipts []*Receipt) *Receipt {
	for _, r := range receipts {
		if r.Executor == self {
			return r
		}
	}
	if p.Agree == 0 {
		return nil
	}
	for _, r := range receipts {
		executors := map[peer.ID]bool{}
		for _, other := range receipts {
			if r.Agrees(other) {
				executors[other.Executor] = true
			}
		}
		if len(executors) >= p.Agree {
			return r
		}
	}
	return nil
}

// Sample says how many results from elsewhere are run again to be compared.
type Sample struct {
	Share    float64       // of receipts, 0 to 1
	NewShare float64       // of receipts of peers that are new
	New      time.Duration // for how long a peer is new
}

// newTimes is how many times as many receipts of peers in their first day are compared.
const newTimes = 3

// NewSample is a share of receipts, and three times as many of peers that are known for less than a day.
func NewSample(share float64) Sample {
	return Sample{Share: share, NewShare: min(1, newTimes*share), New: 24 * time.Hour}
}

// Wants reports whether the receipt of a peer known for so long is to be compared. random is in [0, 1).
func (s Sample) Wants(known time.Duration, random float64) bool {
	if known < s.New {
		return random < s.NewShare
	}
	return random < s.Share
}

// Draw is Wants with a random number.
func (s Sample) Draw(known time.Duration) bool { return s.Wants(known, rand.Float64()) }
