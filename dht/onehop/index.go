package onehop

import (
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Bounds of an index.
const (
	// TTL is how long a record is kept that is not announced again.
	TTL = 30 * time.Minute
	// MaxProviders is how many peers are noted for one key.
	MaxProviders = 16
	// MaxPerPeer is how many keys are noted of one peer.
	MaxPerPeer = 1 << 20
	// Buckets is into how many parts the key space is divided for comparing.
	Buckets = 256
)

// Record says that a peer announced a key.
type Record struct {
	Key  cid.Key
	Peer peer.ID
	At   time.Time
}

// provider is a record under its key.
type provider struct {
	id peer.ID
	at time.Time
}

// Index is what peers announced to this node. Safe for concurrent use.
type Index struct {
	mu     sync.Mutex // guards everything below
	noted  map[cid.Key][]provider
	counts map[peer.ID]int
}

// NewIndex makes an empty index.
func NewIndex() *Index {
	return &Index{noted: map[cid.Key][]provider{}, counts: map[peer.ID]int{}}
}

// Note records that a peer has what keys are of. at is when it said so.
func (x *Index) Note(id peer.ID, keys []cid.Key, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range keys {
		x.note(k, id, at)
	}
}

// note adds one record or renews it. mu is held.
func (x *Index) note(k cid.Key, id peer.ID, at time.Time) {
	providers := x.noted[k]
	if i := slices.IndexFunc(providers, func(p provider) bool { return p.id == id }); i >= 0 {
		if at.After(providers[i].at) {
			providers[i].at = at
		}
		return
	}
	if x.counts[id] >= MaxPerPeer {
		return
	}
	if len(providers) == MaxProviders {
		oldest := 0
		for i, p := range providers {
			if p.at.Before(providers[oldest].at) {
				oldest = i
			}
		}
		x.count(providers[oldest].id, -1)
		providers = slices.Delete(providers, oldest, oldest+1)
	}
	x.noted[k] = append(providers, provider{id, at})
	x.count(id, 1)
}

// count changes how many records a peer has. mu is held.
func (x *Index) count(id peer.ID, by int) {
	if x.counts[id] += by; x.counts[id] == 0 {
		delete(x.counts, id)
	}
}

// remove deletes the providers of k that gone says. mu is held.
func (x *Index) remove(k cid.Key, gone func(provider) bool) {
	left := slices.DeleteFunc(x.noted[k], func(p provider) bool {
		is := gone(p)
		if is {
			x.count(p.id, -1)
		}
		return is
	})
	if len(left) == 0 {
		delete(x.noted, k)
		return
	}
	x.noted[k] = left
}

// Forget removes what a peer announced of keys.
func (x *Index) Forget(id peer.ID, keys []cid.Key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range keys {
		x.remove(k, func(p provider) bool { return p.id == id })
	}
}

// Drop removes everything a peer announced: it was revoked.
func (x *Index) Drop(id peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k := range x.noted {
		x.remove(k, func(p provider) bool { return p.id == id })
	}
}

// Expire removes what was not announced again.
func (x *Index) Expire(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k := range x.noted {
		x.remove(k, func(p provider) bool { return now.Sub(p.at) > TTL })
	}
}

// Find gives the providers of each key but the one who asks, those that announced last first.
func (x *Index) Find(asker peer.ID, keys []cid.Key) [][]peer.ID {
	now := time.Now()
	found := make([][]peer.ID, len(keys))
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, k := range keys {
		providers := x.noted[k]
		if len(providers) > 1 {
			slices.SortStableFunc(providers, func(a, b provider) int { return b.at.Compare(a.at) })
		}
		for _, p := range providers {
			if p.id != asker && now.Sub(p.at) <= TTL {
				found[i] = append(found[i], p.id)
			}
		}
	}
	return found
}

// Len is how many records there are.
func (x *Index) Len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := 0
	for _, c := range x.counts {
		n += c
	}
	return n
}

// bucket is the part of the key space a key is in.
func bucket(k cid.Key) int { return int(k[len(k)-1]) }

// sums gives a sum of the records in each bucket whose keys are shared with another member. Equal
// records give equal sums, whatever their order and age.
func (x *Index) sums(shared func(cid.Key) bool) []uint64 {
	sums := make([]uint64, Buckets)
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, providers := range x.noted {
		if !shared(k) {
			continue
		}
		for _, p := range providers {
			s := k.Fingerprint()
			for _, b := range p.id {
				s = mix(s ^ uint64(b))
			}
			sums[bucket(k)] ^= s
		}
	}
	return sums
}

// differing lists the shared records, at most limit, in buckets whose sums are not these.
func (x *Index) differing(sums []uint64, shared func(cid.Key) bool, limit int) []Record {
	own := x.sums(shared)
	x.mu.Lock()
	defer x.mu.Unlock()
	var records []Record
	for k, providers := range x.noted {
		if own[bucket(k)] == sums[bucket(k)] || !shared(k) {
			continue
		}
		for _, p := range providers {
			records = append(records, Record{k, p.id, p.at})
		}
		if len(records) >= limit {
			break
		}
	}
	return records
}
