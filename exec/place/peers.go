package place

import (
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Bounds of what a peer may claim.
const (
	maxSlots     = 1024
	maxMemory    = 1 << 46
	minSpeed     = 1.0 / 8
	maxSpeed     = 8.0
	maxClaim     = 2.0 // of a speed that nothing was measured of
	unproven     = 16  // cores that a peer gets at once, before it has brought results
	minBandwidth = 1e5
	maxBandwidth = 1e11
)

// node is a peer as the Core sees it.
type node struct {
	// What every candidate is asked, side by side: in a large mesh each line of memory is far away.
	group     *group
	slots     float64 // cores it has, more than 0
	cores     float64 // it claims to have
	freeCores float64 // by our view: its claim minus what we leased since
	memory    int64   // it claims to have; 0: not known
	freeBytes int64
	speed     float64 // claimed, then measured
	bandwidth float64
	health    float64   // 1 is good; halved when a Try is lost there
	lent      float64   // cores that our tries hold there
	proven    float64   // cores that results came from
	banned    time.Time // not asked before
	open      bool      // takes our work
	Peer

	tries    map[*try]bool
	tickets  map[wish]float64 // left there, cut to its slots, and the cores that were wished
	measured int              // results its speed follows
	lies     int              // refusals in a row that contradict its claim
	bin, at  int              // place on the group's shelf; bin < 0: not there
}

// group holds the peers whose Offers are equal in everything but capacity: they match the same requests.
type group struct {
	key     string
	offer   platform.Offer // with the largest capacity seen
	members []*node
	cursor  int // where the next tickets are left
	shelf   shelf
}

// Sizes of a shelf: free cores in powers of two, scores in eighths of powers of two.
const (
	sizes  = 8
	scores = 64
)

// shelf orders the peers of a group that have room by score, so that the best are found without looking at all.
type shelf struct {
	bins [sizes * scores][]*node
	mask [sizes]uint64 // which bins of a size hold peers
}

// sizeOf is the class of free cores: 0 below 2, 1 below 4, ...
func sizeOf(cores float64) int {
	return min(max(bits.Len64(uint64(cores))-1, 0), sizes-1)
}

// binOf is where a peer belongs; -1 when it has no room or is not asked.
func binOf(n *node) int {
	if !n.open || n.freeCores <= 0 {
		return -1
	}
	score := n.load() * n.health
	level := min(max(int(math.Floor(math.Log2(score)*8))+40, 0), scores-1)
	return sizeOf(n.freeCores)*scores + level
}

// load is the part of the score that does not depend on the action.
func (n *node) load() float64 {
	return n.speed * (1 - 0.3*(n.slots-n.freeCores)/n.slots)
}

// put moves n to where it belongs now.
func (s *shelf) put(n *node) {
	bin := binOf(n)
	if bin == n.bin {
		return
	}
	s.take(n)
	if bin < 0 {
		return
	}
	n.bin, n.at = bin, len(s.bins[bin])
	s.bins[bin] = append(s.bins[bin], n)
	s.mask[bin/scores] |= 1 << (bin % scores)
}

// take removes n, wherever it is.
func (s *shelf) take(n *node) {
	if n.bin < 0 {
		return
	}
	held := s.bins[n.bin]
	last := len(held) - 1
	held[n.at] = held[last]
	held[n.at].at = n.at
	held[last] = nil
	s.bins[n.bin] = held[:last]
	if last == 0 {
		s.mask[n.bin/scores] &^= 1 << (n.bin % scores)
	}
	n.bin = -1
}

// best visits peers with at least about cores free, from the highest score down, within a bin from offset on, until visit
// says stop.
func (s *shelf) best(cores float64, offset uint64, visit func(*node) bool) {
	from := sizeOf(cores)
	var all uint64
	for size := from; size < sizes; size++ {
		all |= s.mask[size]
	}
	for all != 0 {
		level := 63 - bits.LeadingZeros64(all)
		all &^= 1 << level
		for size := from; size < sizes; size++ {
			held := s.bins[size*scores+level]
			for i := range held {
				if !visit(held[(offset+uint64(i))%uint64(len(held))]) {
					return
				}
			}
		}
	}
}

// signature is what peers of one group share.
func signature(o platform.Offer) string {
	var b strings.Builder
	for _, part := range [][]string{{o.OSFamily, o.Fingerprint}, o.ISA, o.Pools} {
		b.WriteString(strings.Join(part, "\x01"))
		b.WriteByte(0)
	}
	for _, flag := range []bool{o.UserIDs, o.Network, o.APISocket, o.ChrootRoot, o.WholeRoot, o.Images} {
		b.WriteByte(map[bool]byte{true: '1', false: '0'}[flag])
	}
	return b.String()
}

// bounded is a peer's claim with everything absurd cut off.
func bounded(p Peer) Peer {
	p.Offer.Cores = clamp(p.Offer.Cores, 0, maxSlots)
	p.Offer.MemoryBytes = min(max(p.Offer.MemoryBytes, 0), maxMemory)
	p.FreeCores = clamp(p.FreeCores, 0, p.Offer.Cores)
	p.FreeBytes = min(max(p.FreeBytes, 0), p.Offer.MemoryBytes)
	if p.Speed != 0 {
		p.Speed = clamp(p.Speed, minSpeed, maxSpeed)
	}
	if p.Bandwidth != 0 {
		p.Bandwidth = clamp(p.Bandwidth, minBandwidth, maxBandwidth)
	}
	return p
}

// clamp brings v between low and high; what is no number is low.
func clamp(v, low, high float64) float64 {
	if math.IsNaN(v) {
		return low
	}
	return min(max(v, low), high)
}

// Peer notes what is believed of a peer now, and places what waited for it.
func (c *Core) Peer(now time.Time, p Peer) {
	c.now = now
	p = bounded(p)
	n := c.peers[p.ID]
	if n == nil {
		n = &node{health: 1, bin: -1, tries: map[*try]bool{}, tickets: map[wish]float64{}}
		c.peers[p.ID] = n
		if p.Self {
			c.self = n
		}
	}
	if n.speed == 0 { // a claim counts once, then what was measured
		if n.speed = p.Speed; p.Speed == 0 {
			n.speed = 1
		}
		if !p.Self {
			n.speed = min(n.speed, maxClaim)
		}
	}
	n.bandwidth = p.Bandwidth
	if p.Bandwidth == 0 {
		n.bandwidth = c.options.Bandwidth
	}
	same := n.group != nil && sameOffer(n.Offer, p.Offer)
	n.Peer = p
	n.slots, n.cores, n.memory = max(p.Offer.Cores, minSpeed), p.Offer.Cores, p.Offer.MemoryBytes
	if !same {
		c.regroup(n)
	}
	n.open = p.Self || p.State <= Throttled
	n.freeCores, n.freeBytes = p.FreeCores, p.FreeBytes
	for t := range n.tries {
		if t.reserved.After(p.At) || !t.granted { // the claim cannot know of it
			n.freeCores -= t.cores
			n.freeBytes -= t.bytes
		}
	}
	if now.Before(n.banned) {
		n.open = p.Self
	}
	n.group.shelf.put(n)
	c.dispatch()
}

// sameOffer reports whether two offers match the same requests, of any capacity.
func sameOffer(a, b platform.Offer) bool {
	return a.Cores == b.Cores && a.MemoryBytes == b.MemoryBytes && a.OSFamily == b.OSFamily && a.Fingerprint == b.Fingerprint &&
		slices.Equal(a.ISA, b.ISA) && slices.Equal(a.Pools, b.Pools) && a.Images == b.Images &&
		a.UserIDs == b.UserIDs && a.Network == b.Network && a.APISocket == b.APISocket && a.ChrootRoot == b.ChrootRoot && a.WholeRoot == b.WholeRoot
}

// regroup puts n into the group of its offer.
func (c *Core) regroup(n *node) {
	c.ungroup(n)
	key := signature(n.Offer)
	g := c.groups[key]
	if g == nil {
		g = &group{key: key, offer: n.Offer, cursor: c.random.IntN(1 << 30)} // initiators leave their tickets at different peers
		c.groups[key] = g
		c.order = append(c.order, g)
	}
	n.group = g
	g.members = append(g.members, n)
	g.offer.Cores = max(g.offer.Cores, n.Offer.Cores)
	if g.offer.MemoryBytes > 0 {
		g.offer.MemoryBytes = max(g.offer.MemoryBytes, n.Offer.MemoryBytes)
	}
	if n.Offer.MemoryBytes == 0 {
		g.offer.MemoryBytes = 0 // not known: matches any
	}
	clear(c.matches)
}

// ungroup takes n out of its group; a group without members goes.
func (c *Core) ungroup(n *node) {
	g := n.group
	if g == nil {
		return
	}
	g.shelf.take(n)
	n.group = nil
	g.offer.Cores, g.offer.MemoryBytes = 0, 0
	kept, unknown := g.members[:0], false
	for _, m := range g.members {
		if m != n {
			kept = append(kept, m)
			g.offer.Cores = max(g.offer.Cores, m.Offer.Cores)
			g.offer.MemoryBytes = max(g.offer.MemoryBytes, m.Offer.MemoryBytes)
			unknown = unknown || m.Offer.MemoryBytes == 0
		}
	}
	g.members = kept
	if unknown {
		g.offer.MemoryBytes = 0
	}
	if len(kept) == 0 {
		delete(c.groups, g.key)
		c.order = slices.DeleteFunc(c.order, func(x *group) bool { return x == g })
	}
	clear(c.matches)
}

// Gone forgets a peer; its Tries are lost.
func (c *Core) Gone(now time.Time, id peer.ID) {
	c.now = now
	n := c.peers[id]
	if n == nil || n.Self {
		return
	}
	c.ungroup(n)
	c.TicketLost(now, id)
	delete(c.peers, id)
	n.open = false
	for _, t := range sorted(n.tries) {
		c.fail(t, Lost)
	}
	c.dispatch()
}
