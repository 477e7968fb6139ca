package place

import (
	"fmt"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Class says where an action may run and whose result may be shared.
type Class uint8

// The classes, from free to bound.
const (
	Hermetic      Class = iota // brings its whole root: runs anywhere
	Fingerprinted              // uses the machine's tools: runs where the fingerprint equals ours
	Local                      // runs here only
)

// String is the class in a word.
func (c Class) String() string { return [...]string{"hermetic", "fingerprinted", "local"}[c] }

// State is how welcome guests are at a peer.
type State uint8

// The states, from welcome to not.
const (
	Open      State = iota
	Throttled       // takes guests, with fewer slots
	Draining        // takes no new ones
	Closed
)

// String is the state in a word.
func (s State) String() string { return [...]string{"open", "throttled", "draining", "closed"}[s] }

// Peer is what is believed of a peer. All of it but Self is the peer's claim.
type Peer struct {
	ID        peer.ID
	Name      string // for people
	Self      bool   // this machine: its State does not matter to its own work
	Offer     platform.Offer
	State     State
	FreeCores float64
	FreeBytes int64     // of memory; not looked at when Offer.MemoryBytes is 0
	Speed     float64   // 1 is an ordinary machine; 0: not known
	Bandwidth float64   // bytes a second between it and us; 0: not known
	At        time.Time // when the peer had FreeCores and FreeBytes free, on our clock
}

// Work is one action to be placed.
type Work struct {
	ID         uint64 // the caller's, unique among those in flight
	Action     digest.Digest
	Root       digest.Digest // input root or image; peers that ran with it lately have it
	InputBytes int64         // that a peer without anything would have to fetch; 0: not known
	Platform   platform.Request
	Class      Class
	Invocation string
	Mnemonic   string
	Priority   int32 // lower is more urgent
	DoNotCache bool  // is never hedged
}

// Try names one attempt of a Work.
type Try struct {
	Work    uint64
	Attempt int32 // from 1
}

// Sample is what a Try needed.
type Sample struct {
	Duration    time.Duration // the command's wall time
	Cores       float64       // used at the mean; 0: not known
	MemoryBytes int64         // at the peak; 0: not known
	InputBytes  int64         // fetched for it; 0: not known
	OutputBytes int64         // of its result; 0: not known
	Own         bool          // measured on this machine; Core.Finished sets it
	Starved     bool          // it had run out of memory before; Core.Finished sets it
}

// Failure says why a Try brought no result.
type Failure uint8

// Ways to fail. None is the action's own: that is a result.
const (
	Lost        Failure = iota // the executor vanished, stalled, or has a fault
	Evicted                    // the executor's owner needs the machine
	OutOfMemory                // the reservation was too small
)

// String is the failure in a few words.
func (f Failure) String() string {
	return [...]string{"executor lost", "evicted by its owner", "out of memory"}[f]
}

// Decision is what the caller is to do: *Reserve, *Ticket, *Answer, *Cancel or *Fail.
type Decision interface{ decision() }

// Reserve asks a peer for a lease. Answer with Granted or Refused.
type Reserve struct {
	Try
	Peer        peer.ID
	Cores       float64
	MemoryBytes int64
	Limit       int64   // of memory, in place of the one the action has; 0: that one
	Hedge       bool    // a copy of a slow Try
	Scores      []Score // how the peer was chosen; only with Options.Explain
}

// Ticket asks a peer to offer its next free slot.
type Ticket struct {
	Peer        peer.ID
	Invocation  string
	Cores       float64 // of the Work it was left for
	MemoryBytes int64
}

// Answer takes or passes an offered slot.
type Answer struct {
	Peer  peer.ID
	Offer uint64
	Take  *Reserve // nil: pass; the ticket is gone
}

// Cancel ends a Try that is no longer wanted. Nothing need be reported.
type Cancel struct {
	Try
	Peer peer.ID
}

// Fail gives a Work up.
type Fail struct {
	Work uint64
	Err  error // *platform.MismatchError, *UnavailableError, *MemoryError
}

func (*Reserve) decision() {}
func (*Ticket) decision()  {}
func (*Answer) decision()  {}
func (*Cancel) decision()  {}
func (*Fail) decision()    {}

// UnavailableError says that a Work failed at peers again and again and cannot run here.
type UnavailableError struct {
	Action   digest.Digest
	Attempts int32
	Last     string // what the last one failed of
	After    time.Duration
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("action %s failed at %d peers (the last: %s) and this machine does not fulfil its platform; try again in %s",
		e.Action.Short(), e.Attempts, e.Last, e.After)
}

// MemoryError says that an action needs more memory than any peer has.
type MemoryError struct {
	Action digest.Digest
	Bytes  int64 // that were not enough
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("action %s ran out of memory with %d bytes reserved, and no peer offers more", e.Action.Short(), e.Bytes)
}

// Offer is a free slot at a peer, held for us for a moment.
type Offer struct {
	ID         uint64
	Invocation string
	Cores      float64
	FreeBytes  int64
}

// Refusal is a peer's answer to Reserve.
type Refusal struct {
	Reason    string
	FreeCores float64
	FreeBytes int64
}

// Options of a Core; zero values stand for the defaults given.
type Options struct {
	Seed       uint64        // unlike that of other initiators, who else would choose alike
	Explain    bool          // Reserve says how it was chosen
	Candidates int           // scored for one decision at most; default 16
	Tickets    int           // left for Works of one width of an invocation at most; default 16384
	Attempts   int32         // at peers before running here; default 3
	HedgeAfter time.Duration // least time before a copy; default 1 s
	Bandwidth  float64       // assumed where it is not known; default 50 MB/s
}

func (o Options) withDefaults() Options {
	if o.Candidates <= 0 {
		o.Candidates = 16
	}
	if o.Tickets <= 0 {
		o.Tickets = 16384
	}
	if o.Attempts <= 0 {
		o.Attempts = 3
	}
	if o.HedgeAfter <= 0 {
		o.HedgeAfter = time.Second
	}
	if o.Bandwidth <= 0 {
		o.Bandwidth = 50e6
	}
	return o
}
