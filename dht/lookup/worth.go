package lookup

import (
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/distance"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Query is what Find is asked for: the result of an action made under one of the roots.
type Query struct {
	Action digest.Digest
	Roots  []actioncache.Root // the first for which there is a result counts
	// Expect tells what running the action would cost. It is called at most once, and only when another site might be
	// asked. May be nil: nobody knows.
	Expect func() Cost
}

// Cost is what running an action is expected to take and to make.
type Cost struct {
	Run   time.Duration // 0: not known
	Bytes int64         // of its outputs
}

// roundTrips is how often a hit at another site goes there and back: to the bridge, to who has the result, for the blobs.
const roundTrips = 3

// Worth reports whether fetching a result over a distance is expected to take less than running the action. What is not
// known speaks for asking.
func Worth(c Cost, d distance.Distance) bool {
	if c.Run <= 0 {
		return true
	}
	fetching := roundTrips * d.RTT.Seconds()
	if d.Bandwidth > 0 {
		fetching += float64(c.Bytes) / d.Bandwidth
	}
	return c.Run.Seconds() > fetching
}

// weighing decides for one Query which other sites are worth asking.
type weighing struct {
	lookup *Lookup
	expect func() Cost
	cost   *Cost           // nil: not asked for yet
	sites  map[string]bool // that are worth it, as decided before
	spared bool            // somebody was left out
}

// worth leaves out peers at sites that are not worth asking.
func (w *weighing) worth(ids []peer.ID) []peer.ID {
	if w.expect == nil || w.lookup.options.Distances == nil {
		return ids
	}
	left := slices.DeleteFunc(slices.Clone(ids), func(id peer.ID) bool {
		site, far := w.lookup.site(id)
		return far && !w.site(site)
	})
	w.spared = w.spared || len(left) < len(ids)
	return left
}

// site reports whether one is worth asking.
func (w *weighing) site(name string) bool {
	is, decided := w.sites[name]
	if decided {
		return is
	}
	if w.cost == nil {
		cost := w.expect()
		w.cost = &cost
	}
	is = Worth(*w.cost, w.lookup.options.Distances.To(name))
	if w.sites == nil {
		w.sites = map[string]bool{}
	}
	w.sites[name] = is
	return is
}
