package place

import (
	"container/heap"
	"slices"
	"time"
)

// maxMissedCopies bounds how many slow tries that find no room for a copy are looked at for one decision.
const maxMissedCopies = 4

// alarm is something to look at later: a peer to be asked again, or a try that may be slow.
type alarm struct {
	at   time.Time
	node *node
	try  *try
	made uint64 // breaks ties
}

// alarms is a heap, the earliest first.
type alarms struct {
	all  []alarm
	made uint64
}

func (a *alarms) Len() int { return len(a.all) }
func (a *alarms) Less(i, j int) bool {
	if c := a.all[i].at.Compare(a.all[j].at); c != 0 {
		return c < 0
	}
	return a.all[i].made < a.all[j].made
}
func (a *alarms) Swap(i, j int) { a.all[i], a.all[j] = a.all[j], a.all[i] }
func (a *alarms) Push(x any)    { a.all = append(a.all, x.(alarm)) }
func (a *alarms) Pop() any {
	last := a.all[len(a.all)-1]
	a.all = a.all[:len(a.all)-1]
	return last
}

func (a *alarms) add(x alarm) {
	a.made++
	x.made = a.made
	heap.Push(a, x)
}

// Next is when Tick is wanted; the zero time when it is not.
func (c *Core) Next() time.Time {
	for len(c.alarms.all) > 0 {
		a := c.alarms.all[0]
		if a.try == nil || c.find(a.try.Try) == a.try {
			return a.at
		}
		heap.Pop(&c.alarms) // its try ended long ago
	}
	return time.Time{}
}

// Tick does what time brings: peers are asked again, slow tries get a copy.
func (c *Core) Tick(now time.Time) {
	c.now = now
	for len(c.alarms.all) > 0 && !c.alarms.all[0].at.After(now) {
		a := heap.Pop(&c.alarms).(alarm)
		switch {
		case a.node != nil && a.node.group != nil && !now.Before(a.node.banned):
			a.node.open = a.node.Self || a.node.State <= Throttled
			a.node.group.shelf.put(a.node)
		case a.try != nil:
			c.hedge(a.try)
		}
	}
	c.dispatch()
}

// watch sets the alarm for the moment at which a try is slow.
func (c *Core) watch(t *try) {
	if due, known := c.slowAt(t); known {
		c.alarms.add(alarm{at: due, try: t})
	}
}

// slowAt is when t has run longer than max(3 x median, p95) of its mnemonic.
func (c *Core) slowAt(t *try) (time.Time, bool) {
	if t.item.DoNotCache || t.item.hedged {
		return time.Time{}, false
	}
	e := c.history.Of(t.item.Mnemonic)
	if e.Samples == 0 {
		return c.now.Add(30 * time.Second), true // nothing is known: look again
	}
	return t.reserved.Add(max(3*e.Median, e.P95, c.options.HedgeAfter)), true
}

// mayCopy reports whether t is under way, and alone.
func (c *Core) mayCopy(t *try) bool {
	return c.find(t.Try) == t && len(t.item.tries) == 1 && !t.item.hedged
}

// hedge notes that a try is slow. It gets a copy when nothing waits and there is room elsewhere, which may be at once.
func (c *Core) hedge(t *try) {
	if !c.mayCopy(t) || t.slow != nil {
		return
	}
	due, known := c.slowAt(t)
	switch {
	case !known:
	case due.After(c.now): // the history changed meanwhile
		c.alarms.add(alarm{at: due, try: t})
	default:
		t.slow, t.ripe = c.slow.PushBack(t), c.now
	}
}

// copySlow starts copies of slow tries, until some have found no room.
func (c *Core) copySlow() {
	misses := 0
	for range c.slow.Len() {
		t := c.slow.Remove(c.slow.Front()).(*try)
		t.slow = nil
		if !c.mayCopy(t) || c.copy(t) {
			continue
		}
		t.slow = c.slow.PushBack(t)
		if misses++; misses == maxMissedCopies {
			return
		}
	}
}

// copy starts a copy of a slow try, if there is room where it is worth it.
func (c *Core) copy(t *try) bool {
	n, table := c.choose(t.item)
	if n == nil || c.betterLater(t, n) {
		return false
	}
	c.reserve(t.item, n, table, true)
	return true
}

// betterLater reports whether a copy of t is to wait for a faster peer than n, which has room now: no longer than the faster
// one would save. When to look again is planned.
func (c *Core) betterLater(t *try, n *node) bool {
	e := c.history.Of(t.item.Mnemonic)
	work := min(c.now.Sub(t.reserved).Seconds()*t.node.speed, max(3*e.Median, e.P95).Seconds())
	saved := work/n.speed - work/max(c.fastest(t.item), n.speed)
	until := later(t.ripe, c.emptied).Add(time.Duration(saved * float64(time.Second)))
	if !until.After(c.now) {
		return false
	}
	if !t.look.After(c.now) {
		t.look = until
		c.alarms.add(alarm{at: until, try: t})
	}
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// fastest is the best speed among some of the peers that it may run at, busy or not.
func (c *Core) fastest(it *item) (speed float64) {
	for _, g := range c.match(it).groups {
		for range c.options.Candidates {
			if n := g.members[c.random.IntN(len(g.members))]; n.open && !slices.Contains(it.excluded, n.ID) {
				speed = max(speed, n.speed*n.health)
			}
		}
	}
	return speed
}
