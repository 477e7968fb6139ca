package main

import (
	"cmp"
	"container/heap"
	"slices"
)

// central is one queue that sees every free slot the moment it is free, and takes the fastest.
type central struct {
	*world
	waiting []*act
	order   []float64           // speeds, ascending
	free    map[float64][]*node // by nominal speed; nodes may stand here more than once
	at      map[*node]map[*act]bool
}

func centralFIFO(w *world) {
	c := &central{
		world: w, order: slices.Compact(slices.Sorted(slices.Values(speeds))), free: map[float64][]*node{}, at: map[*node]map[*act]bool{},
	}
	for _, n := range w.nodes {
		c.free[n.nominal] = append(c.free[n.nominal], n)
	}
	w.placed = func(a *act) { c.waiting = append(c.waiting, a); c.dispatch() }
	w.freed, w.back, w.died = c.offer, c.offer, c.lost
}

func (c *central) offer(n *node) {
	c.free[n.nominal] = append(c.free[n.nominal], n)
	c.dispatch()
}

// take finds a node with a free slot; nil when there is none.
func (c *central) take() *node {
	for _, v := range slices.Backward(c.order) {
		for len(c.free[v]) > 0 {
			n := c.free[v][len(c.free[v])-1]
			if n.alive && n.busy() < n.slots {
				return n
			}
			c.free[v] = c.free[v][:len(c.free[v])-1]
		}
	}
	return nil
}

func (c *central) dispatch() {
	for len(c.waiting) > 0 {
		n := c.take()
		if n == nil {
			return
		}
		a := c.waiting[0]
		c.waiting = c.waiting[1:]
		if c.at[n] == nil {
			c.at[n] = map[*act]bool{}
		}
		c.at[n][a] = true
		c.run(n, a, func(r *running) {
			delete(c.at[n], a)
			c.deliver(r)
		})
	}
}

func (c *central) lost(n *node) {
	gone := c.at[n]
	delete(c.at, n)
	c.after(detect, func() {
		c.waiting = append(c.waiting, ordered(gone)...)
		c.dispatch()
	})
}

// slotHeap is when each slot of one speed is free, the earliest first.
type slotHeap []slotAt

type slotAt struct {
	free float64
	node *node
}

func (h slotHeap) Len() int           { return len(h) }
func (h slotHeap) Less(i, j int) bool { return h[i].free < h[j].free }
func (h slotHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *slotHeap) Push(x any)        { *h = append(*h, x.(slotAt)) }
func (h *slotHeap) Pop() any          { panic("never") }

// clairvoyant plans with everything known and nothing going wrong: the action with the longest path to the end first, where
// it ends earliest.
func clairvoyant(s scene) outcome {
	w := newWorld(s)
	acts := slices.Clone(w.acts)
	slices.SortStableFunc(acts, func(a, b *act) int { return cmp.Compare(b.rank, a.rank) })
	order := slices.Compact(slices.Sorted(slices.Values(speeds)))
	slots := w.slotsBySpeed()
	ready := map[*act]float64{}
	for _, a := range acts {
		best, end := (*slotHeap)(nil), 0.0
		for _, v := range order {
			h := slots[v]
			if h.Len() == 0 {
				continue
			}
			s := (*h)[0]
			if e := max(s.free, ready[a]) + s.node.fetch(a) + a.seconds/v; best == nil || e < end {
				best, end = h, e
			}
		}
		n := (*best)[0].node
		n.roots[a.root] = true
		(*best)[0].free = end
		heap.Fix(best, 0)
		w.now = end + n.bring(a)
		w.taken = append(w.taken, w.now-ready[a])
		for _, b := range a.next {
			ready[b] = max(ready[b], w.now)
		}
		w.makespan = max(w.makespan, w.now)
	}
	return w.outcome()
}

func (w *world) slotsBySpeed() map[float64]*slotHeap {
	slots := map[float64]*slotHeap{}
	for _, v := range speeds {
		slots[v] = &slotHeap{}
	}
	for _, n := range w.nodes {
		for range n.slots {
			*slots[n.nominal] = append(*slots[n.nominal], slotAt{0, n})
		}
	}
	return slots
}
