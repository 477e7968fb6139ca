package roster

import (
	"net/netip"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// State is how a member is.
type State uint8

// The states, best first.
const (
	Alive   State = iota // counts on being asked
	Suspect              // do not count on it: gossip and our own evidence disagree, or nobody looked yet
	Dead                 // gone without a word
	Left                 // gone, and said so
)

// String is the word people read.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	case Left:
		return "left"
	default:
		return "unknown"
	}
}

// Member is one peer of the mesh. It is a value; its slices are not to be changed.
type Member struct {
	ID    peer.ID
	Name  string // for people, from its certificate
	Site  string // from its certificate; empty: the only one
	Roles uint8  // bits of trust.Roles

	Gossip  netip.AddrPort // where it gossips, UDP and TCP
	Control netip.AddrPort // where its control connection is taken
	Bulk    netip.AddrPort // where its bulk connections are taken
	Boot    string         // tells its starts apart; empty: not seen since this node's start

	Met    time.Time // when this node first heard of it
	State  State
	Since  time.Time // of the state
	Seen   time.Time // last own evidence that it lives; zero: none since this node's start
	Reason string    // why it is not alive; empty when it is
}

// equal reports whether nothing a watcher cares for differs. Seen moves all the time and is no such thing.
func (m Member) equal(o Member) bool {
	return m.ID == o.ID && m.Name == o.Name && m.Site == o.Site && m.Roles == o.Roles &&
		m.Gossip == o.Gossip && m.Control == o.Control && m.Bulk == o.Bulk && m.Boot == o.Boot &&
		m.Met.Equal(o.Met) && m.State == o.State && m.Since.Equal(o.Since) && m.Reason == o.Reason
}

// Snapshot is the roster at one version. Versions grow by one with every change.
type Snapshot struct {
	Version uint64
	Members []Member // by ID; the node itself is not among them
}

// Get finds a member.
func (s Snapshot) Get(id peer.ID) (Member, bool) {
	i, found := slices.BinarySearchFunc(s.Members, id, func(m Member, id peer.ID) int { return compare(m.ID, id) })
	if !found {
		return Member{}, false
	}
	return s.Members[i], true
}

// In lists the members in a state.
func (s Snapshot) In(state State) []Member {
	var out []Member
	for _, m := range s.Members {
		if m.State == state {
			out = append(out, m)
		}
	}
	return out
}

// compare orders ids by their bytes.
func compare(a, b peer.ID) int { return slices.Compare(a[:], b[:]) }
