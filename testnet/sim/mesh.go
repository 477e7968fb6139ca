package main

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// gossip is how often a node tells of its room, when that changed, seconds.
const gossip = 1.0

// rumour is how long gossip takes to everyone, seconds.
const rumour = 0.2

// initiator is a node with a build: the real core, and the actions it has in flight.
type initiator struct {
	mesh *mesh
	node *node
	core *place.Core
	acts map[uint64]*act
	due  float64 // of the next Tick that is planned
}

// executor is a node that runs actions: the real book.
type executor struct {
	mesh    *mesh
	node    *node
	book    *lease.Book
	runs    map[lease.ID]*running
	changed bool
}

// mesh is the policy that this program exists for.
type mesh struct {
	*world
	initiators []*initiator
	executors  []*executor
	byID       map[peer.ID]*executor
	leases     uint64
	leased     map[claim]lease.Claim
}

func idOf(i int) (id peer.ID) {
	binary.LittleEndian.PutUint64(id[:], uint64(i+1))
	return id
}

// hashOf is the digest of the action of a Work.
func hashOf(work uint64) digest.Digest { return digest.SHA256.Of(strconv.AppendUint(nil, work, 10)) }

func number(id peer.ID) int { return int(binary.LittleEndian.Uint64(id[:])) - 1 }

// meshed lets the real code place the actions of w.
func meshed(w *world) {
	m := &mesh{world: w, byID: map[peer.ID]*executor{}, leased: map[claim]lease.Claim{}}
	for _, n := range w.nodes {
		e := &executor{mesh: m, node: n}
		e.reset()
		m.executors = append(m.executors, e)
		m.byID[idOf(n.index)] = e
	}
	for i := range w.initiators {
		x := &initiator{mesh: m, node: w.nodes[i], acts: map[uint64]*act{}}
		x.core = place.New(place.Options{Seed: uint64(i)}, nil)
		m.initiators = append(m.initiators, x)
	}
	for _, x := range m.initiators {
		for _, e := range m.executors {
			x.core.Peer(w.clock(), x.of(e))
		}
	}
	for _, e := range m.executors {
		w.after(gossip*w.random.Float64(), e.gossip)
	}
	w.placed = func(a *act) { m.initiators[a.initiator].submit(a) }
	w.died = m.died
	w.back = func(n *node) { m.executors[n.index].reset() }
}

// reset makes the executor of a node that has just started.
func (e *executor) reset() {
	m := e.mesh
	e.runs = map[lease.ID]*running{}
	e.changed = true
	e.book = lease.NewBook(float64(e.node.slots), 0, lease.Options{Self: idOf(e.node.index), NewID: func() (id lease.ID) {
		m.leases++
		binary.LittleEndian.PutUint64(id[:], m.leases)
		return id
	}})
}

// facts is what e says of itself.
func (e *executor) facts() place.Peer {
	cores, _ := e.book.Free()
	return place.Peer{
		ID: idOf(e.node.index), Offer: platform.Offer{OSFamily: "linux", Cores: float64(e.node.slots)},
		FreeCores: cores, Speed: e.node.nominal, Bandwidth: e.node.bandwidth, At: e.mesh.clock(),
	}
}

// gossip tells everyone of a change, once a second at most.
func (e *executor) gossip() {
	m := e.mesh
	m.after(gossip, e.gossip)
	if !e.node.alive {
		return
	}
	if next := e.book.Next(); !next.IsZero() && !next.After(m.clock()) {
		e.with(func(b *lease.Book) { b.Tick(m.clock()) })
	}
	if !e.changed {
		return
	}
	e.changed = false
	p := e.facts()
	m.after(rumour, func() {
		for _, x := range m.initiators {
			if x.node != e.node {
				x.step(func(c *place.Core) { c.Peer(m.clock(), p) })
			}
		}
	})
}

// with uses the book and carries its effects out. The node's own initiator hears of its room at once.
func (e *executor) with(use func(b *lease.Book)) {
	if !e.node.alive {
		return
	}
	before, _ := e.book.Free()
	use(e.book)
	for _, f := range e.book.Effects() {
		switch f := f.(type) {
		case *lease.Kill:
			e.mesh.abort(e.node, e.runs[f.Lease])
			delete(e.runs, f.Lease)
			e.mesh.after(0, func() { e.with(func(b *lease.Book) { b.Finished(e.mesh.clock(), f.Lease) }) })
		case *lease.Offered:
			x := e.mesh.initiators[number(f.Caller)]
			e.mesh.after(e.far(x), func() {
				x.step(func(c *place.Core) {
					c.Offered(e.mesh.clock(), idOf(e.node.index), place.Offer{ID: f.Offer, Invocation: f.Invocation, Cores: f.Cores})
				})
			})
		}
	}
	if after, _ := e.book.Free(); after != before {
		e.changed = true
		if i := e.node.index; i < len(e.mesh.initiators) {
			x := e.mesh.initiators[i]
			e.mesh.after(0, func() { x.step(func(c *place.Core) { c.Peer(e.mesh.clock(), x.of(e)) }) })
		}
	}
}

// far is how long a message between e and x takes.
func (e *executor) far(x *initiator) float64 {
	if x.node == e.node {
		return 0
	}
	return latency
}

// of is what x knows of e first hand.
func (x *initiator) of(e *executor) place.Peer {
	p := e.facts()
	p.Self = x.node == e.node
	return p
}

// submit places an action.
func (x *initiator) submit(a *act) {
	id := uint64(a.id + 1)
	x.acts[id] = a
	root := digest.SHA256.Of([]byte("root" + strconv.Itoa(a.root)))
	x.step(func(c *place.Core) {
		c.Submit(x.mesh.clock(), place.Work{ID: id, Action: hashOf(id), Root: root, InputBytes: a.bytes, Invocation: "build", Mnemonic: a.mnemonic})
	})
}

// step tells the core something and carries its decisions out.
func (x *initiator) step(tell func(c *place.Core)) {
	m := x.mesh
	tell(x.core)
	for _, d := range x.core.Decisions() {
		switch d := d.(type) {
		case *place.Reserve:
			e := m.byID[d.Peer]
			m.after(e.far(x), func() {
				e.with(func(b *lease.Book) {
					id, _, refusal := b.Reserve(m.clock(), x.request(d))
					x.answered(e, d, id, refusal)
				})
			})
		case *place.Ticket:
			e := m.byID[d.Peer]
			m.after(e.far(x), func() {
				e.with(func(b *lease.Book) {
					b.Ticket(m.clock(), lease.Ticket{Caller: idOf(x.node.index), Invocation: d.Invocation, Cores: d.Cores})
				})
			})
		case *place.Answer:
			x.answer(m.byID[d.Peer], d)
		case *place.Cancel:
			e := m.byID[d.Peer]
			m.after(e.far(x), func() { e.with(func(b *lease.Book) { x.cancel(b, d) }) })
		case *place.Fail:
			panic("an action was given up: " + d.Err.Error())
		}
	}
	if next := x.core.Next(); !next.IsZero() {
		at := max(next.Sub(m.clock()).Seconds(), 0) + m.now
		if x.due <= m.now || at < x.due {
			x.due = at
			m.after(at-m.now, func() { x.step(func(c *place.Core) { c.Tick(m.clock()) }) })
		}
	}
}

func (x *initiator) request(d *place.Reserve) lease.Request {
	return lease.Request{Caller: idOf(x.node.index), Action: hashOf(d.Work), Invocation: "build", Attempt: d.Attempt, Cores: d.Cores}
}

// claim names an attempt; its lease is found by it when it is cancelled.
type claim struct {
	work    uint64
	attempt int32
}

// answer takes or passes an offered slot.
func (x *initiator) answer(e *executor, d *place.Answer) {
	m := x.mesh
	m.after(e.far(x), func() {
		e.with(func(b *lease.Book) {
			if d.Take == nil {
				b.Pass(m.clock(), idOf(x.node.index), d.Offer)
				return
			}
			id, _, refusal := b.Take(m.clock(), d.Offer, x.request(d.Take))
			x.answered(e, d.Take, id, refusal)
		})
	})
}

// answered is e's word on a reservation, on its way back to x; a granted action begins a round trip later.
func (x *initiator) answered(e *executor, d *place.Reserve, id lease.ID, refusal *lease.Refusal) {
	m := x.mesh
	m.after(e.far(x), func() {
		if refusal != nil {
			x.step(func(c *place.Core) {
				c.Refused(m.clock(), d.Try, place.Refusal{Reason: refusal.Reason, FreeCores: refusal.FreeCores})
			})
			return
		}
		c := lease.Claim{Lease: id, Caller: idOf(x.node.index), Attempt: d.Attempt}
		if !x.core.Current(d.Try) { // cancelled meanwhile
			m.after(e.far(x), func() { e.with(func(b *lease.Book) { b.Cancel(m.clock(), c) }) })
			return
		}
		m.leased[claim{d.Work, d.Attempt}] = c
		x.step(func(c *place.Core) { c.Granted(m.clock(), d.Try) })
		m.after(e.far(x), func() { e.begin(x, d, c) })
	})
}

// begin runs the action of a lease, and brings its result to x.
func (e *executor) begin(x *initiator, d *place.Reserve, c lease.Claim) {
	m := e.mesh
	a := x.acts[d.Work]
	e.with(func(b *lease.Book) {
		id, begin, err := b.Start(m.clock(), c, hashOf(d.Work))
		if err != nil || !begin {
			return // cancelled meanwhile: equal actions meet nowhere
		}
		e.runs[id] = m.run(e.node, a, func(r *running) {
			delete(e.runs, id)
			e.with(func(b *lease.Book) { b.Finished(m.clock(), id) })
			ran := time.Duration((m.now - r.fetched) * float64(time.Second))
			m.after(e.node.bring(a), func() { x.result(e, d, c, ran) })
		})
	})
	e.beat(c)
}

// beat renews a lease while there is one.
func (e *executor) beat(c lease.Claim) {
	e.mesh.after(lease.BeatEvery.Seconds(), func() {
		if e.node.alive && e.book.Beat(e.mesh.clock(), c) == nil {
			e.beat(c)
		}
	})
}

// result tells the core of the end of an action, and lets the executor forget it.
func (x *initiator) result(e *executor, d *place.Reserve, c lease.Claim, ran time.Duration) {
	m := x.mesh
	if x.core.Current(d.Try) {
		m.finish(x.acts[d.Work])
	}
	delete(m.leased, claim{d.Work, d.Attempt})
	x.step(func(c *place.Core) { c.Finished(m.clock(), d.Try, place.Sample{Duration: max(ran, 1), Cores: 1}) })
	m.after(e.far(x), func() { e.with(func(b *lease.Book) { _ = b.Ack(m.clock(), c) }) }) // stale after a restart
}

// cancel ends an attempt, when its lease is known; else answered does.
func (x *initiator) cancel(b *lease.Book, d *place.Cancel) {
	k := claim{d.Work, d.Attempt}
	if c, found := x.mesh.leased[k]; found {
		delete(x.mesh.leased, k)
		b.Cancel(x.mesh.clock(), c)
	}
}

// died empties a node; the initiators notice later.
func (m *mesh) died(n *node) {
	clear(m.executors[n.index].runs)
	m.after(detect, func() {
		for _, x := range m.initiators {
			x.step(func(c *place.Core) { c.Gone(m.clock(), idOf(n.index)) })
		}
	})
}
