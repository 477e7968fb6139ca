package main

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// scene is what a world is made of.
type scene struct {
	nodes, initiators int
	perSlot           int  // actions for every slot of the mesh
	disturbed         bool // nodes die and come back, and slow down
	seed              uint64
}

// speeds that nodes have; few values, so that the list schedule stays cheap.
var speeds = []float64{0.5, 0.75, 1, 1, 1, 1.25, 1.5, 2}

// node is a simulated machine.
type node struct {
	index     int
	nominal   float64
	speed     float64 // now
	slots     int
	bandwidth float64 // bytes a second
	alive     bool
	roots     map[int]bool // inputs that are there
	running   map[*running]bool
	coming    int    // on their way to queue
	queue     []*act // of policies that queue at nodes
}

// running is an action on a node.
type running struct {
	action  *act
	node    *node
	fetched float64 // when its inputs were there
	left    float64 // work, in seconds at speed 1
	since   float64
	version int // of the event that ends it
	done    func(r *running)
}

// event is something at a time.
type event struct {
	at   float64
	made int
	do   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].made < e[j].made
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// latency of a message, seconds; detect is how long a dead executor goes unnoticed.
const (
	latency = 0.001
	detect  = 10.0
)

// world is a mesh at a moment.
type world struct {
	scene
	now    float64
	events events
	made   int
	random *rand.Rand
	nodes  []*node
	acts   []*act
	left   int // actions not done
	taken  []float64

	makespan float64

	placed func(a *act)  // the policy: an action is ready
	freed  func(n *node) // the policy: a slot of n is free
	died   func(n *node) // the policy: n is gone, with what ran there
	back   func(n *node) // the policy: n is back, empty
}

// newWorld makes nodes and a trace. Equal scenes make equal worlds, whatever the policy.
func newWorld(s scene) *world {
	w := &world{scene: s, random: rand.New(rand.NewPCG(s.seed, uint64(s.nodes)))}
	slots := 0
	for i := range s.nodes {
		v := speeds[w.random.IntN(len(speeds))]
		n := &node{
			index: i, nominal: v, speed: v, slots: []int{2, 4, 4, 8}[w.random.IntN(4)], bandwidth: 60e6 * math.Exp(w.random.NormFloat64()*0.4),
			alive: true, roots: map[int]bool{}, running: map[*running]bool{},
		}
		slots += n.slots
		w.nodes = append(w.nodes, n)
	}
	w.acts = newTrace(w.random, slots*s.perSlot, s.initiators)
	w.left = len(w.acts)
	for _, a := range w.acts { // the initiator has every input
		w.nodes[a.initiator].roots[a.root] = true
	}
	nothing := func(*node) {}
	w.freed, w.died, w.back = nothing, nothing, nothing
	return w
}

// clock gives the simulated time as the cores want it.
func (w *world) clock() time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(w.now * float64(time.Second)))
}

// after does something later.
func (w *world) after(d float64, do func()) {
	w.made++
	heap.Push(&w.events, event{w.now + d, w.made, do})
}

// play runs the world until every action is done, and gives when that was.
func (w *world) play() outcome {
	w.disturb()
	for _, a := range w.acts {
		if a.waits == 0 {
			w.after(0, func() { w.ready(a) })
		}
	}
	for w.left > 0 && len(w.events) > 0 && w.now < 1e5 {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.makespan = w.now
	if w.left > 0 {
		w.makespan = math.Inf(1)
	}
	return w.outcome()
}

func (w *world) outcome() outcome {
	slices.Sort(w.taken)
	return outcome{makespan: w.makespan, p99: w.taken[len(w.taken)*99/100], actions: len(w.acts)}
}

func (w *world) ready(a *act) {
	a.readyAt = w.now
	w.placed(a)
}

// finish notes a result; further ones of the same action do not count.
func (w *world) finish(a *act) {
	if a.done {
		return
	}
	a.done, a.doneAt = true, w.now
	w.left--
	w.taken = append(w.taken, w.now-a.readyAt)
	for _, b := range a.next {
		if b.waits--; b.waits == 0 {
			w.after(0, func() { w.ready(b) })
		}
	}
}

// run occupies a slot of n with an action: fetching its inputs, then working. done is called at the end, unless abort or
// death came first.
func (w *world) run(n *node, a *act, done func(r *running)) *running {
	fetch := n.fetch(a)
	n.roots[a.root] = true
	r := &running{action: a, node: n, fetched: w.now + fetch, left: a.seconds + fetch*n.speed, since: w.now, done: done}
	n.running[r] = true
	w.aim(n, r)
	return r
}

// fetch is how long n needs to get the inputs of an action.
func (n *node) fetch(a *act) float64 {
	if n.roots[a.root] {
		return 0
	}
	return float64(a.bytes) / n.bandwidth
}

// bring is how long the outputs of an action take from n to its initiator.
func (n *node) bring(a *act) float64 {
	if n.index == a.initiator {
		return 0
	}
	return latency + float64(a.outputs)/n.bandwidth
}

// deliver brings the outputs of r home, which ends its action.
func (w *world) deliver(r *running) {
	w.after(r.node.bring(r.action), func() { w.finish(r.action) })
}

// aim sets the event that ends r, at n's speed.
func (w *world) aim(n *node, r *running) {
	r.version++
	version := r.version
	w.after(r.left/n.speed, func() {
		if n.running[r] && r.version == version {
			delete(n.running, r)
			r.done(r)
			w.freed(n)
		}
	})
}

// abort ends an action without a result.
func (w *world) abort(n *node, r *running) {
	if n.running[r] {
		delete(n.running, r)
		w.freed(n)
	}
}

// pace changes a node's speed, also for what runs there.
func (w *world) pace(n *node, speed float64) {
	all := make([]*running, 0, len(n.running))
	for r := range n.running {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *running) int { return cmp.Compare(a.action.id, b.action.id) })
	for _, r := range all {
		r.left = max(0, r.left-(w.now-r.since)*n.speed)
		r.since = w.now
	}
	n.speed = speed
	for _, r := range all {
		w.aim(n, r)
	}
}

// disturb plans what happens to nodes: a tenth dies for half a minute, a fifth slows down to a tenth, in the first minute.
// Initiators are spared: a build ends with its machine.
func (w *world) disturb() {
	random := rand.New(rand.NewPCG(w.seed, 99))
	for _, n := range w.nodes[w.initiators:] {
		dies, slows, at, back := random.IntN(10) == 0, random.IntN(5) == 0, 2+30*random.Float64(), 20+20*random.Float64()
		if w.disturbed && dies {
			w.after(at, func() {
				n.alive = false
				clear(n.running)
				clear(n.roots)
				n.queue = nil
				w.died(n)
			})
			w.after(at+back, func() {
				n.alive = true
				w.back(n)
			})
		}
		if w.disturbed && slows {
			w.after(at, func() { w.pace(n, n.nominal/10) })
			w.after(at+back, func() { w.pace(n, n.nominal) })
		}
	}
}

// busy is how many slots of n are taken.
func (n *node) busy() int { return len(n.running) }

// outcome of a play, in seconds.
type outcome struct {
	makespan, p99 float64
	actions       int
}
