package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/replicate"
	"github.com/buildmesh/buildmesh/mesh/facts"
)

const (
	// replicateFor is how old a result may be that is copied after a restart.
	replicateFor = 7 * 24 * time.Hour
	// keepSlots is how many members' results are copied here at once.
	keepSlots = 2
	// pinPart and roomPart are the parts of the store that pins for copies may take, and that must stay free of
	// copies of others' results.
	pinPart, roomPart = 4, 5
)

// newCopier has what is made here held by others.
func (c *content) newCopier(where locate.Locator) *replicate.Copier {
	n := c.node
	return replicate.New(replicate.Options{
		Others: n.config.Store.Replicas - 1, Members: c.copyMembers, Dialer: n.mesh.transport, Locator: where,
		Pinner: resultPins{c}, PinBytes: n.store.Stat().MaxBytes / pinPart, Metered: n.metered,
	})
}

// newKeeper takes copies of what others made.
func (c *content) newKeeper(x *company) *replicate.Keeper {
	return &replicate.Keeper{Adopter: x.copies, Dialer: c.node.mesh.transport, Refuse: c.refuseCopies, Slots: make(chan struct{}, keepSlots)}
}

// metered reports whether this node's network is paid by the byte now.
func (n *Node) metered() bool {
	now, _ := n.lending.governor.Facts()
	return now.Metered
}

// refuseCopies gives why this node takes no copies now, nil when it does.
func (c *content) refuseCopies() error {
	s := c.node.store.Stat()
	switch {
	case c.policy.Agree != 1:
		return fmt.Errorf("its trust policy is %s", c.policy)
	case c.node.metered():
		return errors.New("its network is metered")
	case c.node.draining.Load():
		return errors.New("it shuts down")
	case s.Bytes > s.MaxBytes-s.MaxBytes/roomPart || s.Free < s.MinFree:
		return errors.New("its disk is nearly full")
	}
	return nil
}

// copyMembers is who may be asked to hold something: who has told its facts, and is not leaving. Who stands at another
// site is asked only when nobody stands at this one.
func (c *content) copyMembers() []replicate.Member {
	presence, sites := c.node.mesh.presence, c.node.sites()
	members := sites.Near()
	if len(members) == 0 {
		members = sites.All.Members()
	}
	var all []replicate.Member
	for _, m := range members {
		if f, known := presence.Book.Get(m.ID); known && f.State != facts.Draining {
			all = append(all, replicate.Member{ID: m.ID, Battery: f.Battery, Metered: f.Network == facts.Metered})
		}
	}
	return all
}

// resultPins pins results that this node made.
type resultPins struct{ content *content }

// Pin implements replicate.Pinner.
func (p resultPins) Pin(ctx context.Context, key cid.Key) (release func(), bytes int64, err error) {
	raw, err := p.content.receipts.Raw([]cid.Key{key})
	if err != nil {
		return nil, 0, err
	}
	for _, one := range raw[0] {
		s, err := receipt.Peek(one)
		if err != nil || s.Executor != p.content.node.identity.ID() {
			continue
		}
		blobs, err := p.content.node.results.cache.References(ctx, s.Action.Function(), s.Result)
		if err != nil {
			return nil, 0, err
		}
		pin, missing := p.content.node.store.Pin(blobs)
		if len(missing) > 0 {
			pin.Release()
			return nil, 0, fmt.Errorf("pin %d blobs: %w", len(missing), cas.ErrNotFound)
		}
		for _, d := range blobs {
			bytes += d.Size()
		}
		return pin.Release, bytes, nil
	}
	return nil, 0, fmt.Errorf("pin a result made here: %w", cas.ErrNotFound)
}
