package place

import (
	"container/heap"
	"time"
)

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

// hedge starts a copy of a slow try, when nothing waits and there is room elsewhere.
func (c *Core) hedge(t *try) {
	if c.find(t.Try) != t || len(t.item.tries) != 1 || t.item.hedged {
		return
	}
	due, known := c.slowAt(t)
	switch {
	case !known:
	case due.After(c.now): // the history changed meanwhile
		c.alarms.add(alarm{at: due, try: t})
	case c.queue.waiting > 0 || c.history.Of(t.item.Mnemonic).Samples == 0 || c.start(t.item, true) == nil:
		c.alarms.add(alarm{at: c.now.Add(c.options.HedgeAfter), try: t})
	}
}
