package main

import (
	"fmt"
	"io"
	"time"

	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// flow keeps a Core at work: as many actions in flight as the mesh has slots, or one and a half times as many, so that some
// wait and tickets are out.
type flow struct {
	core  *place.Core
	now   time.Time
	next  uint64
	runs  []*place.Reserve // under way, the oldest first
	waits map[peer.ID]bool // nodes with a ticket
	count int              // actions placed
}

// newFlow makes one with nodes of four slots, filled up to load.
func newFlow(nodes int, load float64) *flow {
	f := &flow{core: place.New(place.Options{}, nil), now: time.Unix(1_000_000, 0), waits: map[peer.ID]bool{}}
	for i := range nodes {
		f.core.Peer(f.now, place.Peer{
			ID: idOf(i), Self: i == 0, Offer: platform.Offer{OSFamily: "linux", Cores: 4}, FreeCores: 4, Speed: speeds[i%len(speeds)], At: f.now,
		})
	}
	for range int(load * float64(4*nodes)) {
		f.submit()
	}
	return f
}

func (f *flow) submit() {
	f.next++
	f.core.Submit(f.now, place.Work{ID: f.next, Action: hashOf(f.next), Root: hashOf(f.next % 512), Invocation: "build", Mnemonic: "CppCompile", InputBytes: 1e6})
	f.settle()
}

// settle does what was decided: tickets are kept, reservations granted.
func (f *flow) settle() {
	for _, d := range f.core.Decisions() {
		switch d := d.(type) {
		case *place.Reserve:
			f.grant(d)
		case *place.Ticket:
			f.waits[d.Peer] = true
		case *place.Answer:
			if d.Take == nil {
				delete(f.waits, d.Peer)
			} else {
				f.grant(d.Take)
			}
		}
	}
}

func (f *flow) grant(r *place.Reserve) {
	f.count++
	f.core.Granted(f.now, r.Try)
	f.runs = append(f.runs, r)
}

// turn ends the oldest action, offers its slot when a ticket is there, and adds an action.
func (f *flow) turn() {
	f.now = f.now.Add(time.Millisecond)
	r := f.runs[0]
	f.runs = f.runs[1:]
	f.core.Finished(f.now, r.Try, place.Sample{Duration: time.Second, Cores: 1, MemoryBytes: 1 << 28})
	f.settle()
	if f.waits[r.Peer] {
		f.core.Offered(f.now, r.Peer, place.Offer{ID: f.next, Invocation: "build", Cores: r.Cores})
		f.settle()
	}
	f.submit()
}

// writeRates measures decisions a second of one Core, on one processor.
func writeRates(w io.Writer) error {
	fmt.Fprintln(w, "| nodes | decisions/s, slots free | decisions/s, actions waiting |\n|---|---|---|")
	for _, nodes := range []int{100, 1000, 10000} {
		fmt.Fprintf(w, "| %d |", nodes)
		for _, load := range []float64{0.8, 1.5} {
			f := newFlow(nodes, load)
			before, began := f.count, time.Now()
			for time.Since(began) < time.Second {
				for range 100 {
					f.turn()
				}
			}
			fmt.Fprintf(w, " %.0f |", float64(f.count-before)/time.Since(began).Seconds())
		}
		fmt.Fprintln(w)
	}
	return nil
}
