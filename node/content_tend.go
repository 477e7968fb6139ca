package node

import (
	"context"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
)

const (
	// tendEvery is how often what others are told is compared with what is here.
	tendEvery = 30 * time.Second
	// sweepMost is how many results are looked at in one go after an eviction.
	sweepMost = 1000
)

// tender has the mesh told of what is here, and of no more.
type tender struct {
	content  *content
	company  *company
	told     locate.Locator // of all results
	look     bool           // something was announced that may not be whole
	removals uint64         // from the store, when the last look for results that are not whole any more began
	left     []cid.Key      // of this look
}

func newTender(c *content, x *company) *tender {
	return &tender{content: c, company: x, told: x.results(), look: true, removals: c.node.store.Removals()}
}

// run announces what is known here at the start, and then makes its rounds until ctx ends.
func (t *tender) run(ctx context.Context) {
	if err := t.content.adoptOwn(ctx, t.company); err != nil && ctx.Err() == nil {
		t.content.node.log.Warn("results made before are not shared", "err", err)
	}
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		_ = t.company.blobs.tend(ctx, t.company.large()) // nobody can be told now: the next round tries again
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.round(ctx)
	}
}

// round announces all results when the locator has changed, and forgets those that eviction has made incomplete.
func (t *tender) round(ctx context.Context) {
	x := t.company
	if now := x.results(); now != t.told && x.lookup.AnnounceAll(ctx) == nil {
		t.told, t.look = now, true // the mesh has grown or shrunk across a bound: the other locator is told everything
		if x.kind() != locate.Kad {
			x.kad.leave()
		}
	}
	if now := t.content.node.store.Removals(); (t.look || now != t.removals) && len(t.left) == 0 {
		t.look, t.removals = false, now
		t.left, _ = x.lookup.Keys() // what cannot be read is looked for again after the next eviction
	}
	for len(t.left) > 0 && ctx.Err() == nil {
		var err error
		if t.left, err = x.lookup.Sweep(ctx, t.left, sweepMost); err != nil {
			break
		}
	}
}
