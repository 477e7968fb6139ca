package actioncache

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// remembered is a result that was complete when last checked. Only the two atomics change.
type remembered struct {
	result   *repb.ActionResult
	blobs    []digest.Digest // everything it refers to
	size     int64           // in memory, by estimate
	removals atomic.Uint64   // of the blob store, before the last check
	touched  atomic.Int64    // time of the last check in nanoseconds since 1970
}

// newRemembered makes one of a result whose encoding has so many bytes.
func newRemembered(result *repb.ActionResult, blobs []digest.Digest, encoded int) *remembered {
	const digestSize, overhead, inflation = 48, 512, 4 // decoded messages are that much larger
	return &remembered{result: result, blobs: blobs, size: overhead + inflation*int64(encoded) + digestSize*int64(len(blobs))}
}

// checked notes a successful check that began when the store had made so many removals. Of two checks
// at once either may be noted last: both are true.
func (r *remembered) checked(removals uint64, now time.Time) *remembered {
	r.removals.Store(removals)
	r.touched.Store(now.UnixNano())
	return r
}

// fresh reports whether the last check still holds and the blobs' lifetimes are still long.
func (r *remembered) fresh(removals uint64, now time.Time, every time.Duration) bool {
	age := now.UnixNano() - r.touched.Load()
	return r.removals.Load() == removals && age >= 0 && age < int64(every)
}

// epochs is how many counters tell Puts of different keys apart.
const epochs = 256

// memory holds remembered results, least recently used first out.
//
// What keeps it from remembering an outdated result:
//
//	Get                          Put
//	epoch := 7
//	read old record
//	                             write new record
//	                             forget: epoch = 8
//	add(old, 7): refused
type memory struct {
	limit int64

	mu     sync.Mutex // guards everything below
	places map[Key]*list.Element
	order  *list.List // of *item, most recently used first
	used   int64
	epochs [epochs]uint64 // grow with every Put and Delete, by the first byte of the action's hash
}

type item struct {
	key Key
	*remembered
}

func newMemory(limit int64) *memory {
	return &memory{limit: limit, places: map[Key]*list.Element{}, order: list.New()}
}

func epochOf(key Key) int {
	hash := key.Action.Hash()
	return int(hash[0])
}

func (m *memory) get(key Key) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	place := m.places[key]
	if place == nil {
		return nil
	}
	m.order.MoveToFront(place)
	return place.Value.(*item).remembered
}

// epoch is to be taken before the record is read, and handed to add.
func (m *memory) epoch(key Key) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epochs[epochOf(key)]
}

// add remembers r unless its record may have changed since epoch was taken.
func (m *memory) add(key Key, r *remembered, epoch uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epochs[epochOf(key)] != epoch || r.size > m.limit/4 {
		return
	}
	m.remove(key)
	m.places[key] = m.order.PushFront(&item{key, r})
	m.used += r.size
	for m.used > m.limit {
		m.remove(m.order.Back().Value.(*item).key)
	}
}

// drop forgets r if it is what is remembered under key.
func (m *memory) drop(key Key, r *remembered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if place := m.places[key]; place != nil && place.Value.(*item).remembered == r {
		m.remove(key)
	}
}

// forget is called after the record under key changed.
func (m *memory) forget(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epochs[epochOf(key)]++
	m.remove(key)
}

// remove is called with mu held.
func (m *memory) remove(key Key) {
	if place := m.places[key]; place != nil {
		m.used -= place.Value.(*item).size
		m.order.Remove(place)
		delete(m.places, key)
	}
}

func (m *memory) bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}
