package place

import (
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Trace is how a Work was placed, for its owner to read.
type Trace struct {
	Class    Class
	Waited   time.Duration // from Submit to the first reservation
	Attempts []Attempt     // in the order they began
	Learned  Sample        // what Core.Finished gave
}

// Attempt is one Try as it went.
type Attempt struct {
	Attempt     int32
	Peer        peer.ID
	Name        string
	Self        bool
	Hedge       bool // a copy of a slow one
	Won         bool // its result counted
	Cores       float64
	MemoryBytes int64
	Scores      []Score // how the peer was chosen; empty when it offered a slot
	Events      []Event
}

// Event is something that happened to an attempt.
type Event struct {
	After time.Duration // since the Work was submitted
	What  string        // a few words
}
