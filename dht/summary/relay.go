package summary

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// relay is another site's summary as it came from a bridge there, for those at this site who follow it here. It is over
// as long as nothing comes. Safe for concurrent use.
type relay struct {
	mu      sync.Mutex // guards everything below
	epoch   uint64
	base    []byte
	delta   []uint64 // append-only within an epoch: readers hold prefixes
	live    bool
	changed chan struct{}
}

func newRelay() *relay { return &relay{changed: make(chan struct{})} }

// rebase begins another epoch.
func (r *relay) rebase(epoch uint64, base []byte) {
	r.change(func() { r.epoch, r.base, r.delta, r.live = epoch, base, nil, true })
}

// add appends what came next of the epoch.
func (r *relay) add(fingerprints []uint64) {
	r.change(func() { r.delta, r.live = append(r.delta, fingerprints...), true })
}

// end says that nothing comes for now.
func (r *relay) end() { r.change(func() { r.live = false }) }

// change lets f change the state and wakes everybody who follows.
func (r *relay) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// clear forgets everything.
func (r *relay) clear() { r.change(func() { r.epoch, r.base, r.delta, r.live = 0, nil, nil, false }) }

// has reports whether exactly so much of an epoch is here.
func (r *relay) has(epoch, sequence uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch == epoch && uint64(len(r.delta)) == sequence
}

// size is how many bytes of memory it takes, and whether it is passed on now.
func (r *relay) size() (bytes int64, live bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.base) + 8*len(r.delta)), r.live
}

func (r *relay) state() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return state{epoch: r.epoch, base: r.base, delta: slices.Clip(r.delta), changed: r.changed, over: !r.live}
}

// way says from whom another site's summary comes: from its bridge itself when this node is a bridge too, else from the
// bridges of this site in turn. It is not known while this site has none.
func (p *Peers) way(s *summary) (from peer.ID, known bool) {
	bridges := p.bridges()
	s.direct = slices.Contains(bridges, p.self().ID)
	if s.direct {
		return s.id, true
	}
	s.relay.clear()
	if len(bridges) == 0 {
		return peer.ID{}, false
	}
	s.tried++
	return bridges[s.tried%len(bridges)], true
}

// watch cancels a stream of another site's summary, which is direct or not, when this node becomes a bridge or is one no
// more, or when whom it is from passes nothing on any more.
func (p *Peers) watch(ctx context.Context, from peer.ID, direct bool, cancel context.CancelFunc) {
	self := p.self().ID
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		bridges := p.bridges()
		if slices.Contains(bridges, self) != direct || !direct && !slices.Contains(bridges, from) {
			cancel()
			return
		}
	}
}

// relay gives what comes from a bridge of another site, nil when it is not followed.
func (p *Peers) relay(of peer.ID) *relay {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if s := p.byID[of]; s != nil {
		return s.relay
	}
	return nil
}
