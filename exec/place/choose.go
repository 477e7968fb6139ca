package place

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Weights of a Score.
const (
	ownBonus      = 1.1  // own slots come first
	localityBonus = 0.25 // the input root is there
	spread        = 0.05 // initiators that want the same action tend to the same peer, where it runs once
	shortest      = 0.5  // seconds; what is shorter is not worth moving more for
)

// Score is how good a peer was for a Work, in parts. Total is what counts.
type Score struct {
	Peer     peer.ID
	Name     string
	Total    float64
	Speed    float64 // x health, and x 1.1 for this machine
	Load     float64 // what busy slots take off
	Locality float64 // what having the inputs adds
	Transfer float64 // what fetching them takes off
	Refused  string  // why it was not considered; the parts are 0 then
}

// demand is what one decision needs to know of an item, gathered once for all candidates.
type demand struct {
	*item
	need
	estimate Estimate
	holders  []*node // that have its root
}

// demand gathers what it takes to place an item.
func (c *Core) demand(it *item) demand {
	d := demand{item: it, estimate: c.history.Of(it.Mnemonic)}
	d.need = needAfter(it, d.estimate)
	for _, id := range c.roots.holders[it.Root] {
		if n := c.peers[id]; n != nil {
			d.holders = append(d.holders, n)
		}
	}
	return d
}

// unfit says why n, of a group that matches, is not to run it now; "" when it may.
func (c *Core) unfit(d *demand, n *node) string {
	cores, bytes := d.at(n)
	switch {
	case d.Class == Local && !n.Self:
		return "runs on its own machine only"
	case !n.Self && c.now.Before(n.banned):
		return "refuses what it says it has"
	case !n.open && !n.Self:
		return n.State.String()
	case d.excluded != nil && slices.Contains(d.excluded, n.ID):
		return "failed there before"
	case n.freeCores < cores-1e-9:
		return "no free slot"
	case !n.Self && n.lent > 0 && n.lent+cores > unproven+2*n.proven:
		return "has brought too few results to get more"
	case n.memory > 0 && bytes > n.memory:
		return "too little memory"
	case n.memory > 0 && n.freeBytes < bytes:
		return fmt.Sprintf("only %d MiB of memory are free for it, of %d MiB it asks for", n.freeBytes>>20, bytes>>20)
	}
	for _, t := range d.tries {
		if t.node == n {
			return "runs there already"
		}
	}
	if d.Platform.Cores > n.cores || n.memory > 0 && d.item.memory > n.memory {
		return d.mismatch(n).Error()
	}
	return ""
}

// mismatch is what of the item's platform n does not fulfil.
func (it *item) mismatch(n *node) error {
	request := it.Platform
	request.MemoryBytes = it.memory
	return request.Match(n.Offer)
}

// choose finds the best peer with room for it: the best by load of each group, those known to have its root, and this
// machine are scored in full. nil when nobody has room.
func (c *Core) choose(it *item) (*node, []Score) {
	m, d := c.match(it), c.demand(it)
	var best *node
	var bestScore Score
	var table []Score
	consider := func(n *node, has bool) bool {
		if c.unfit(&d, n) != "" {
			return false
		}
		s := score(&d, n, has)
		if c.options.Explain {
			table = append(table, s)
		}
		if best == nil || s.Total > bestScore.Total || s.Total == bestScore.Total && n.ID.String() < best.ID.String() {
			best, bestScore = n, s
		}
		return true
	}
	if m.self {
		consider(c.self, slices.Contains(d.holders, c.self))
	}
	for _, n := range d.holders {
		if n != c.self && slices.Contains(m.groups, n.group) {
			consider(n, true)
		}
	}
	if it.Class != Local {
		for _, g := range m.groups {
			c.shelved(&d, g, func(n *node) bool { return consider(n, false) })
		}
	}
	if c.options.Explain && best != nil {
		table = c.explain(&d, table)
	}
	return best, table
}

// shelved considers the best of a group by load.
func (c *Core) shelved(d *demand, g *group, consider func(*node) bool) {
	good, looked := 0, 0
	visit := func(n *node) bool {
		looked++
		if n != c.self && !slices.Contains(d.holders, n) && consider(n) {
			good++
		}
		return good < c.options.Candidates && looked < 4*c.options.Candidates
	}
	offset := c.random.Uint64() >> 1
	g.shelf.best(d.cores, offset, visit)
	if good == 0 && d.cores > 1 && d.Platform.Cores == 0 { // a guess excludes nobody
		looked = 0
		g.shelf.best(1, offset, visit)
	}
}

// score rates one peer for one Work. Transfer is in units of how long the action is expected to take: fetching for a
// second matters to an action of a second, and not to one of ten minutes.
func score(d *demand, n *node, has bool) Score {
	s := Score{Peer: n.ID, Name: n.Name, Speed: n.speed * n.health}
	s.Load = s.Speed * 0.3 * (n.slots - n.freeCores) / n.slots
	if n.Self {
		s.Speed *= ownBonus
	}
	switch {
	case has:
		s.Locality = localityBonus
	case !n.Self:
		bytes := d.InputBytes
		if bytes == 0 {
			bytes = d.estimate.InputBytes
		}
		s.Transfer = min(float64(bytes)/n.bandwidth/max(d.estimate.Median.Seconds(), shortest), 8)
	}
	s.Total = s.Speed - s.Load + s.Locality - s.Transfer + spread*affinity(d.item, n)
	return s
}

// affinity is the same for an action and a peer whoever asks, from 0 to 1.
func affinity(it *item, n *node) float64 {
	hash := it.Action.Hash()
	h := binary.LittleEndian.Uint64(hash[:8]) ^ binary.LittleEndian.Uint64(n.ID[:8])*0x9e3779b97f4a7c15
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return float64(h>>11) / (1 << 53)
}

// explained is how many peers an explanation lists at most.
const explained = 24

// explain adds the peers that were not considered, and puts the best first.
func (c *Core) explain(d *demand, table []Score) []Score {
	for _, g := range c.order {
		for _, n := range g.members {
			if len(table) >= explained {
				break
			}
			if slices.ContainsFunc(table, func(s Score) bool { return s.Peer == n.ID }) {
				continue
			}
			why := c.unfit(d, n)
			if err := d.mismatch(n); why == "" && err != nil {
				why = err.Error()
			}
			if why == "" && d.Class == Fingerprinted && !c.comparable(g) {
				why = "has other tools (host fingerprint)"
			}
			if why == "" {
				why = "not among the best by load"
			}
			table = append(table, Score{Peer: n.ID, Name: n.Name, Refused: why})
		}
	}
	slices.SortStableFunc(table, func(a, b Score) int {
		switch {
		case (a.Refused == "") != (b.Refused == ""):
			if a.Refused == "" {
				return -1
			}
			return 1
		case a.Total > b.Total:
			return -1
		case a.Total < b.Total:
			return 1
		}
		return 0
	})
	return table
}
