package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
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

// newFlow makes one with nodes of four slots and some actions in flight.
func newFlow(nodes, flights int) *flow {
	f := &flow{core: place.New(place.Options{}, nil), now: time.Unix(1_000_000, 0), waits: map[peer.ID]bool{}}
	for i := range nodes {
		f.core.Peer(f.now, place.Peer{
			ID: idOf(i), Self: i == 0, Offer: platform.Offer{OSFamily: "linux", Cores: 4}, FreeCores: 4, Speed: speeds[i%len(speeds)], At: f.now,
		})
	}
	for range flights {
		f.submit()
	}
	return f
}

// flights are how many actions a flow has in flight.
var flights = []struct {
	name string
	of   func(nodes int) int
}{
	{"320 in flight", func(int) int { return 320 }},
	{"four fifths of the slots taken", func(nodes int) int { return 4 * nodes * 4 / 5 }},
	{"half as many more waiting", func(nodes int) int { return 4 * nodes * 3 / 2 }},
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

// Sizes of measuring: every flow has its turn in each round, so that what else the machine does meets all alike.
const (
	rateRounds = 60
	rateTurn   = 25 * time.Millisecond
)

// rate is decisions a second for one turn.
func (f *flow) rate() float64 {
	before, began := f.count, time.Now()
	for time.Since(began) < rateTurn {
		for range 20 {
			f.turn()
		}
	}
	return float64(f.count-before) / time.Since(began).Seconds()
}

// writeRates measures decisions a second of one Core, on one processor: the best tenth of the turns, which was disturbed least, and
// how it compares with the smallest mesh's.
func writeRates(w io.Writer) {
	sizes := []int{100, 1000, 10000}
	var flows []*flow
	for _, nodes := range sizes {
		for _, in := range flights {
			flows = append(flows, newFlow(nodes, in.of(nodes)))
		}
	}
	rates := make([][]float64, len(flows))
	for range rateRounds {
		for i, f := range flows {
			rates[i] = append(rates[i], f.rate())
		}
	}
	fmt.Fprint(w, "Decisions a second, and as a part of those with 100 nodes.\n\n| nodes |")
	for _, in := range flights {
		fmt.Fprintf(w, " %s | |", in.name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|---|", len(flights)))
	for i, nodes := range sizes {
		fmt.Fprintf(w, "| %d |", nodes)
		for j := range flights {
			slices.Sort(rates[i*len(flights)+j])
			best := rates[i*len(flights)+j][rateRounds*9/10]
			fmt.Fprintf(w, " %.0f | %.2f |", best, best/rates[j][rateRounds*9/10])
		}
		fmt.Fprintln(w)
	}
}
