package place

import (
	"cmp"
	"container/list"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// maxMisses bounds how many waiting Works that find no room are looked at before the rest is left waiting.
const maxMisses = 64

// unavailableRetry is when a client should come back with an action that nobody could run.
const unavailableRetry = 5 * time.Second

// Core decides for one initiator. Make it with New.
type Core struct {
	options Options
	now     time.Time // of the fact under way
	random  *rand.Rand
	history *History

	peers   map[peer.ID]*node
	self    *node
	groups  map[string]*group
	order   []*group // the groups in the order they came
	matches map[shape]match
	roots   *roots
	tickets map[wish]int // left, by what their Works reserve at a peer that has it

	items     map[uint64]*item
	queue     queue
	emptied   time.Time // when the last Work that waited was placed; the zero time while some wait
	slow      list.List // of *try: those that are to get a copy, the first first
	alarms    alarms
	decisions []Decision
}

// item is a Work in flight.
type item struct {
	Work
	shape    shape
	waits    *list.Element
	tries    []*try
	attempts int32
	failed   int32 // tries lost, evictions left out
	starved  int32 // tries that ran out of memory
	last     Failure
	excluded []peer.ID
	memory   int64 // reserved; grows when it was not enough
	hedged   bool
	tested   bool // a try ran here with all the memory it could have here
}

// try is one attempt under way.
type try struct {
	Try
	item     *item
	node     *node
	cores    float64
	bytes    int64
	enough   int64 // bytes of memory that were not
	hedge    bool
	granted  bool
	reserved time.Time
	slow     *list.Element // while it waits for a copy
	ripe     time.Time     // when it was found slow
	look     time.Time     // when room for one is looked for again, whatever happens
}

// New makes a Core that knows no peer. h may hold what was learned earlier, and is the Core's from now on; nil starts without.
func New(o Options, h *History) *Core {
	if h == nil {
		h = NewHistory()
	}
	return &Core{
		options: o.withDefaults(), random: rand.New(rand.NewPCG(o.Seed, 1)), history: h,
		peers: map[peer.ID]*node{}, groups: map[string]*group{}, matches: map[shape]match{}, roots: newRoots(), tickets: map[wish]int{},
		items: map[uint64]*item{}, queue: queue{counts: map[string]int{}},
	}
}

// Decisions gives what is to be done since the last call, in order.
func (c *Core) Decisions() []Decision {
	d := c.decisions
	c.decisions = nil
	return d
}

func (c *Core) decide(d Decision) { c.decisions = append(c.decisions, d) }

// Waiting is the length of the queue.
func (c *Core) Waiting() int { return c.queue.waiting }

// Submit adds a Work. When no peer matches its platform it fails at once with a *platform.MismatchError.
func (c *Core) Submit(now time.Time, w Work) {
	c.now = now
	it := &item{Work: w, memory: w.Platform.MemoryBytes}
	it.shape = shapeOf(it)
	if m := c.match(it); len(m.groups) == 0 {
		c.decide(&Fail{Work: w.ID, Err: m.err})
		return
	}
	c.items[w.ID] = it
	c.queue.push(it, false)
	c.dispatch()
}

// Withdraw ends a Work whose client is gone.
func (c *Core) Withdraw(now time.Time, work uint64) {
	c.now = now
	if it := c.items[work]; it != nil {
		c.end(it, nil)
		c.dispatch()
	}
}

// end forgets an item and cancels all its tries but one.
func (c *Core) end(it *item, won *try) {
	c.queue.remove(it, false)
	for _, t := range it.tries {
		c.release(t)
		if t != won {
			c.decide(&Cancel{Try: t.Try, Peer: t.node.ID})
		}
	}
	it.tries = nil
	delete(c.items, it.ID)
}

// release gives back what a try held in the local view.
func (c *Core) release(t *try) {
	n := t.node
	if t.slow != nil {
		c.slow.Remove(t.slow)
		t.slow = nil
	}
	if !n.tries[t] {
		return
	}
	delete(n.tries, t)
	n.lent -= t.cores
	if n.group == nil {
		return
	}
	if len(n.tickets) == 0 { // else it offers what is freed, to us or to others who wait
		n.freeCores = min(n.freeCores+t.cores, n.slots)
		n.freeBytes = min(n.freeBytes+t.bytes, n.Offer.MemoryBytes)
	}
	n.group.shelf.put(n)
}

// dispatch gives waiting Works the room there is, in the order of their turns, and leaves tickets for the rest. When none
// waits, slow tries get copies.
func (c *Core) dispatch() {
	if c.queue.waiting > 0 {
		c.placeWaiting()
	}
	if c.queue.waiting > 0 {
		c.emptied = time.Time{}
		return
	}
	if c.emptied.IsZero() {
		c.emptied = c.now
	}
	c.copySlow()
}

func (c *Core) placeWaiting() {
	misses := 0
	missed := map[shape]bool{}
	c.queue.each(func(it *item) bool {
		if missed[it.shape] && it.excluded == nil {
			misses++
			return misses < maxMisses
		}
		if c.start(it, false) == nil {
			misses++
			if it.excluded == nil {
				missed[it.shape] = true
			}
			c.leaveTickets(it)
			return misses < maxMisses
		}
		return true
	})
}

// start begins a try of it at the best peer with room; nil when there is none.
func (c *Core) start(it *item, hedge bool) *Reserve {
	n, table := c.choose(it)
	if n == nil {
		return nil
	}
	return c.reserve(it, n, table, hedge)
}

// reserve begins a try of it at n, chosen by a table of scores.
func (c *Core) reserve(it *item, n *node, table []Score, hedge bool) *Reserve {
	r := c.try(it, n, hedge)
	r.Scores = table
	c.decide(r)
	return r
}

// try begins a try of it at n and takes the room from our view of n.
func (c *Core) try(it *item, n *node, hedge bool) *Reserve {
	c.queue.remove(it, true)
	it.attempts++
	cores, bytes := c.needOf(it).at(n)
	t := &try{
		Try: Try{Work: it.ID, Attempt: it.attempts}, item: it, node: n,
		cores: cores, bytes: bytes, hedge: hedge, reserved: c.now,
	}
	it.tries = append(it.tries, t)
	it.hedged = it.hedged || hedge
	it.tested = it.tested || n == c.self && (bytes >= n.memory || it.memory == 0)
	n.tries[t] = true
	n.lent += t.cores
	n.freeCores -= t.cores
	n.freeBytes -= t.bytes
	n.group.shelf.put(n)
	c.watch(t)
	r := &Reserve{Try: t.Try, Peer: n.ID, Cores: t.cores, MemoryBytes: t.bytes, Hedge: hedge}
	if it.memory > 0 && t.bytes > it.Platform.MemoryBytes {
		r.Limit = t.bytes
	}
	return r
}

// need is what is to be reserved for an item.
type need struct {
	cores float64
	bytes int64
	asked int64 // of the bytes; the rest is a guess
}

// needOf is what an item asks for, else what its kind needed before; and more memory than it asks for, when others of its kind
// ran out of that.
func (c *Core) needOf(it *item) need { return needAfter(it, c.history.Of(it.Mnemonic)) }

// needAfter is needOf with what the kind needed before at hand.
func needAfter(it *item, before Estimate) need {
	d := need{cores: it.Platform.Cores, bytes: max(it.memory, before.StarvedBytes), asked: it.memory}
	if d.cores == 0 {
		d.cores = max(before.Cores, 1)
	}
	if d.asked == 0 {
		d.bytes = max(d.bytes, before.MemoryBytes)
	}
	return d
}

// at is what is reserved at n. What is but a guess excludes nobody.
func (d need) at(n *node) (cores float64, bytes int64) {
	return min(d.cores, n.slots), max(d.asked, min(d.bytes, n.memory))
}

// find gives the try, when it is current.
func (c *Core) find(id Try) *try {
	it := c.items[id.Work]
	if it == nil {
		return nil
	}
	for _, t := range it.tries {
		if t.Attempt == id.Attempt {
			return t
		}
	}
	return nil
}

// Estimate is what an action of a mnemonic is expected to need; the zero one when that is not known.
func (c *Core) Estimate(mnemonic string) Estimate { return c.history.Of(mnemonic) }

// Current reports whether a try may still complete its Work: every other result is late.
func (c *Core) Current(id Try) bool { return c.find(id) != nil }

// Granted notes that a peer gave a lease.
func (c *Core) Granted(now time.Time, id Try) {
	c.now = now
	t := c.find(id)
	if t == nil {
		return
	}
	t.granted = true
	t.node.lies = 0
}

// Refused notes that a peer had no room after all. The Work keeps its turn and is placed elsewhere.
func (c *Core) Refused(now time.Time, id Try, r Refusal) {
	c.now = now
	t := c.find(id)
	if t == nil {
		return
	}
	n, it := t.node, t.item
	c.drop(t)
	if n.group != nil {
		n.freeCores, n.freeBytes = clamp(r.FreeCores, 0, n.slots), min(max(r.FreeBytes, 0), n.Offer.MemoryBytes)
		n.At = now
		if c.takes(it, n) { // it says that it has room, and refuses
			n.lies++
			c.ban(n, min(100*time.Millisecond<<min(n.lies, 10), time.Minute))
		}
		n.group.shelf.put(n)
	}
	if len(it.tries) == 0 {
		it.attempts-- // it never began
		c.queue.push(it, true)
	} else if t.hedge {
		it.hedged = false
		c.watch(it.tries[0])
	}
	c.dispatch()
}

// drop removes a try from its item and from our view of its peer.
func (c *Core) drop(t *try) {
	c.release(t)
	t.item.tries = slices.DeleteFunc(t.item.tries, func(x *try) bool { return x == t })
}

// ban keeps n from being asked for a while.
func (c *Core) ban(n *node, d time.Duration) {
	n.banned = c.now.Add(d)
	n.open = n.Self
	c.alarms.add(alarm{at: n.banned, node: n})
}

// Finished notes a valid result. The Work is done: its other tries are cancelled. It gives what the History learned, which may
// be added to a later one; the zero Sample when it learned nothing.
func (c *Core) Finished(now time.Time, id Try, s Sample) Sample {
	c.now = now
	t := c.find(id)
	if t == nil {
		return Sample{}
	}
	n := t.node
	n.proven = min(n.proven+t.cores, maxSlots)
	c.end(t.item, t)
	learned := c.learn(n, t.item, s)
	c.dispatch()
	return learned
}

// learn draws conclusions from a result: what the kind needs, how fast the peer is, that it is well, what it now has. It
// gives what the History takes from it.
func (c *Core) learn(n *node, it *item, s Sample) Sample {
	n.health = min(1, n.health*1.25)
	c.roots.note(it.Root, n.ID)
	defer func() {
		if n.group != nil {
			n.group.shelf.put(n)
		}
	}()
	known := c.history.reference(it.Mnemonic)
	if s.Duration <= 0 { // it ended without having run
		return Sample{}
	}
	if !n.Self && known > 0 && s.Duration > 10*time.Millisecond {
		n.measured++
		weight := max(1/float64(n.measured+4), 0.1) // one action tells little: its kind takes now more, now less
		measured := clamp(known.Seconds()/s.Duration.Seconds(), minSpeed, maxSpeed)
		n.speed = math.Exp((1-weight)*math.Log(n.speed) + weight*math.Log(measured))
	}
	if !n.Self && known > 0 && n.measured <= enough { // its speed is but a claim, and would spoil the history
		return Sample{}
	}
	if usual := c.history.Of(it.Mnemonic).UsualBytes; !n.Self && usual > 0 {
		s.MemoryBytes = min(s.MemoryBytes, maxTimesUsual*usual)
	}
	s = s.on(n.speed)
	s.Own, s.Starved = n.Self, it.starved > 0
	c.history.Add(it.Mnemonic, s)
	return s
}

// Starved notes that a try ran out of the bytes of memory it could use, and repeats the Work with twice as many, or with as many as
// any peer has.
func (c *Core) Starved(now time.Time, id Try, bytes int64) {
	c.now = now
	if t := c.find(id); t != nil {
		t.enough = min(bytes, maxMemory)
		c.fail(t, OutOfMemory)
		c.dispatch()
	}
}

// Failed notes that a try brought no result, and repeats the Work.
func (c *Core) Failed(now time.Time, id Try, why Failure) {
	c.now = now
	if t := c.find(id); t != nil {
		c.fail(t, why)
		c.dispatch()
	}
}

// fail drops a try and decides how its Work goes on. A copy under way goes on alone, and may get one itself.
func (c *Core) fail(t *try, why Failure) {
	it, n := t.item, t.node
	needed := max(t.bytes, t.enough)
	c.drop(t)
	it.last = why
	switch why {
	case OutOfMemory:
		it.starved++
		it.memory = c.more(it, needed)
		it.shape = shapeOf(it)
	case Evicted:
		it.excluded = append(it.excluded, n.ID)
	default:
		it.failed++
		it.excluded = append(it.excluded, n.ID)
		n.health = max(n.health/2, 1.0/64)
		if n.group != nil {
			n.group.shelf.put(n)
		}
	}
	it.hedged = false
	if len(it.tries) > 0 {
		c.watch(it.tries[0])
		return
	}
	if err := c.hopeless(it, t); err != nil {
		c.end(it, nil)
		c.decide(&Fail{Work: it.ID, Err: err})
		return
	}
	c.queue.push(it, true)
}

// hopeless says why a Work is not tried again; nil when it is.
func (c *Core) hopeless(it *item, t *try) error {
	m := c.match(it)
	if it.last == OutOfMemory && (len(m.groups) == 0 || it.starved > c.options.Attempts) {
		if c.lastHere(it) { // peers alone have said so
			return nil
		}
		return &MemoryError{Action: it.Action, Bytes: max(t.bytes, t.enough)}
	}
	here := m.self && (t.node != c.self || it.last == OutOfMemory)
	if it.failed >= c.options.Attempts && it.last != OutOfMemory {
		if !here {
			return &UnavailableError{Action: it.Action, Attempts: it.failed, Last: it.last.String(), After: unavailableRetry}
		}
		it.Class = Local // runs here, and nowhere else
		it.shape = shapeOf(it)
	}
	if here {
		it.excluded = slices.DeleteFunc(it.excluded, func(id peer.ID) bool { return id == c.self.ID })
		return nil
	}
	for _, g := range m.groups {
		for _, n := range g.members {
			if !slices.Contains(it.excluded, n.ID) {
				return nil
			}
		}
	}
	if it.last == Evicted { // nobody is at fault: wait for whoever comes back
		it.excluded = nil
		return nil
	}
	return &UnavailableError{Action: it.Action, Attempts: it.failed, Last: it.last.String(), After: unavailableRetry}
}

// leastAgain is the memory that a Work gets at least that ran out of it.
const leastAgain = 1 << 30

// more is the memory to try a Work with that ran out of needed bytes: twice as much, in its last try all that a peer offers. No peer
// need have it.
func (c *Core) more(it *item, needed int64) int64 {
	most, twice := int64(0), max(2*needed, leastAgain)
	for _, g := range c.match(it).groups {
		for _, n := range g.members {
			if it.Class != Local && n.open || n.Self {
				most = max(most, n.memory)
			}
		}
	}
	if most > needed && (most < twice || it.starved == c.options.Attempts) {
		return most
	}
	return twice
}

// lastHere has a Work that peers say ran out of memory run here with all there is, unless it ran here before or may not.
func (c *Core) lastHere(it *item) bool {
	if c.self == nil || it.tested || it.Platform.Match(c.self.Offer) != nil {
		return false
	}
	it.Class, it.memory = Local, c.self.Offer.MemoryBytes
	it.shape = shapeOf(it)
	return true
}

// sorted gives tries in a fixed order, so that equal facts give equal decisions.
func sorted(tries map[*try]bool) []*try {
	all := make([]*try, 0, len(tries))
	for t := range tries {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *try) int {
		return cmp.Or(cmp.Compare(a.Work, b.Work), cmp.Compare(a.Attempt, b.Attempt))
	})
	return all
}
