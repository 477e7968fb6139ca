package lease

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// maxHolders is how many initiators are told of.
const maxHolders = 64

// Holder is an initiator and what it uses of a machine.
type Holder struct {
	Peer    peer.ID
	Cores   float64
	Actions int
}

// Holders tells who uses the machine, those with most cores first. An action that several initiators wait for counts for
// the first of them.
func (b *Book) Holders() []Holder {
	sums := map[peer.ID]*Holder{}
	for _, r := range b.runs {
		if r.phase == finished || len(r.leases) == 0 {
			continue
		}
		id := r.leases[0].Caller
		if sums[id] == nil {
			sums[id] = &Holder{Peer: id}
		}
		sums[id].Cores += r.cores
		sums[id].Actions++
	}
	all := make([]Holder, 0, len(sums))
	for _, h := range sums {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(x, y Holder) int {
		return cmp.Or(cmp.Compare(y.Cores, x.Cores), bytes.Compare(x.Peer[:], y.Peer[:]))
	})
	return all[:min(len(all), maxHolders)]
}

// Holders tells who uses this machine.
func (e *Executor) Holders() (all []Holder) {
	e.with(func(b *Book, _ time.Time) { all = b.Holders() })
	return all
}

// Occupancy implements leasev1.LeaseServer.
func (e *Executor) Occupancy(ctx context.Context, _ *leasev1.OccupancyRequest) (*leasev1.OccupancyResponse, error) {
	if _, err := e.options.Caller(ctx); err != nil {
		return nil, err
	}
	answer := &leasev1.OccupancyResponse{Cores: e.Usage().Cores}
	for _, h := range e.Holders() {
		answer.Holders = append(answer.Holders, &leasev1.Holder{Peer: h.Peer[:], Cores: h.Cores, Actions: int64(h.Actions)})
	}
	return answer, nil
}

// HoldersFrom reads a peer's answer. What it claims is bounded: nobody uses more than the cores it has.
func HoldersFrom(r *leasev1.OccupancyResponse, cores float64) (all []Holder) {
	left := cores
	for _, h := range r.GetHolders()[:min(len(r.GetHolders()), maxHolders)] {
		if len(h.Peer) != len(peer.ID{}) || !(h.Cores > 0) {
			continue
		}
		one := Holder{Peer: peer.ID(h.Peer), Cores: min(h.Cores, left), Actions: int(max(min(h.Actions, 1<<20), 0))}
		left -= one.Cores
		all = append(all, one)
	}
	return all
}
