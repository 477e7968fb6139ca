package gossip

import (
	"slices"
	"time"
)

const (
	// spreadFor is how long a new key waits for members that have not told they hold it.
	spreadFor = 30 * time.Second
	// lingerFor is how long an old key still opens what comes, after the new one is used.
	lingerFor = 60 * time.Second
	// maxKeys bounds the keys held; epochs in a hurry push the oldest out.
	maxKeys = 4
)

// Key encrypts gossip during one epoch of the mesh: AES-256.
type Key [32]byte

// epochKey is a key in the ring.
type epochKey struct {
	key   Key
	epoch uint64
	since time.Time // it was added
}

// ring decides which keys open gossip and which one seals it. A new key is added everywhere, then used, and
// then the old ones are removed; nobody is cut off who is awake. It reads no clock.
type ring struct {
	keys []epochKey // by epoch
	use  uint64     // epoch that seals
	used time.Time  // since when
}

// newRing begins with a key in use.
func newRing(epoch uint64, key Key, now time.Time) *ring {
	return &ring{keys: []epochKey{{key, epoch, now}}, use: epoch, used: now}
}

// add takes in the key of an epoch. Older ones than the one in use are of no use any more.
func (r *ring) add(epoch uint64, key Key, now time.Time) {
	if epoch <= r.use || slices.ContainsFunc(r.keys, func(k epochKey) bool { return k.epoch == epoch }) {
		return
	}
	r.keys = append(r.keys, epochKey{key, epoch, now})
	slices.SortFunc(r.keys, func(a, b epochKey) int { return int(min(max(int64(a.epoch-b.epoch), -1), 1)) })
	for len(r.keys) > maxKeys {
		i := 0
		if r.keys[i].epoch == r.use {
			i = 1
		}
		r.keys = slices.Delete(r.keys, i, i+1)
	}
}

// held is the newest epoch there is a key of.
func (r *ring) held() uint64 { return r.keys[len(r.keys)-1].epoch }

// told is what the cards of the others say: the least epoch all of them hold, and the least all of them use.
type told struct{ held, used uint64 }

// step moves on as far as it may, and reports whether anything changed.
func (r *ring) step(others told, now time.Time) bool {
	changed := false
	if newest := r.keys[len(r.keys)-1]; newest.epoch > r.use &&
		(others.held >= newest.epoch || now.Sub(newest.since) >= spreadFor) {
		r.use, r.used, changed = newest.epoch, now, true
	}
	if r.keys[0].epoch < r.use && (others.used >= r.use || now.Sub(r.used) >= lingerFor) {
		r.keys = slices.DeleteFunc(r.keys, func(k epochKey) bool { return k.epoch < r.use })
		changed = true
	}
	return changed
}
