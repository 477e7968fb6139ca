package main

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
)

// pushes is the state of a policy that hands every action to nodes at once, where it waits.
type pushes struct {
	*world
	choose func(a *act) []*node
	late   bool                    // a node gets a reservation only, void when the action has begun elsewhere
	begun  map[*act]*node          // where each runs
	at     map[*node]map[*act]bool // what each was handed
}

// pushed makes w a world of such a policy. What is lost with a node is handed out again when that is noticed.
func pushed(w *world, late bool, choose func(a *act) []*node) {
	p := &pushes{world: w, choose: choose, late: late, begun: map[*act]*node{}, at: map[*node]map[*act]bool{}}
	w.placed, w.freed, w.died = p.place, p.start, p.lost
}

func (p *pushes) place(a *act) {
	for _, n := range p.choose(a) {
		if p.at[n] == nil {
			p.at[n] = map[*act]bool{}
		}
		p.at[n][a] = true
		n.coming++
		p.after(latency, func() {
			n.coming--
			if n.alive { // else noticed with the others
				n.queue = append(n.queue, a)
				p.start(n)
			}
		})
	}
}

// start runs what waits at n while it has a free slot.
func (p *pushes) start(n *node) {
	for n.alive && n.busy() < n.slots && len(n.queue) > 0 {
		a := n.queue[0]
		n.queue = n.queue[1:]
		if p.begun[a] != nil || a.done {
			continue
		}
		p.begun[a] = n
		p.run(n, a, p.deliver)
	}
}

// lost hands out again what was at n, when its death is noticed.
func (p *pushes) lost(n *node) {
	p.after(detect, func() {
		gone := p.at[n]
		delete(p.at, n)
		for _, a := range ordered(gone) {
			if by := p.begun[a]; a.done || by != nil && by != n {
				continue
			}
			delete(p.begun, a)
			p.place(a)
		}
	})
}

// ordered gives the actions of a set by number.
func ordered(set map[*act]bool) []*act {
	return slices.SortedFunc(maps.Keys(set), func(a, b *act) int { return cmp.Compare(a.id, b.id) })
}

// any gives a node that is alive, as far as is known.
func (w *world) any() *node {
	for {
		if n := w.nodes[w.random.IntN(len(w.nodes))]; n.alive {
			return n
		}
	}
}

func (n *node) load() float64 { return float64(n.busy()+len(n.queue)+n.coming) / float64(n.slots) }

func randomPush(w *world) {
	pushed(w, false, func(*act) []*node { return []*node{w.any()} })
}

func twoChoices(w *world) {
	pushed(w, false, func(*act) []*node {
		a, b := w.any(), w.any()
		if b.load() < a.load() {
			a = b
		}
		return []*node{a}
	})
}

func lateBinding(w *world) {
	pushed(w, true, func(*act) []*node {
		a, b := w.any(), w.any()
		for range 8 {
			if a != b {
				break
			}
			b = w.any()
		}
		return []*node{a, b}
	})
}

// believed is the load of a node as an initiator sees it.
type believed struct {
	node *node
	load float64
	at   int
}

type loads []*believed

func (l loads) Len() int { return len(l) }
func (l loads) Less(i, j int) bool {
	return l[i].load < l[j].load || l[i].load == l[j].load && l[i].node.index < l[j].node.index
}
func (l loads) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}
func (l *loads) Push(x any) { *l = append(*l, x.(*believed)) }
func (l *loads) Pop() any   { panic("never") }

// leastLoaded pushes to the shortest queue, by facts a second old and one's own additions since.
func leastLoaded(w *world) {
	views := make([]loads, w.initiators)
	for i := range views {
		for _, n := range w.nodes {
			views[i] = append(views[i], &believed{node: n, at: len(views[i])})
		}
	}
	var refresh func()
	refresh = func() {
		for i := range views {
			for _, b := range views[i] {
				b.load = b.node.load()
				if !b.node.alive {
					b.load = 1e9
				}
			}
			heap.Init(&views[i])
		}
		w.after(1, refresh)
	}
	w.after(0, refresh)
	pushed(w, false, func(a *act) []*node {
		b := views[a.initiator][0]
		b.load += 1 / float64(b.node.slots)
		heap.Fix(&views[a.initiator], 0)
		return []*node{b.node}
	})
}
