package fetch

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// How long providers are avoided.
const (
	// LieFor is how long a provider is not asked that sent other bytes than it was asked for.
	LieFor = 10 * time.Minute
	// FailFor is how long one is asked last that failed or was slow.
	FailFor = 5 * time.Second
	// EmptyFor is how long one is asked last that often did not have what it was said to have.
	EmptyFor = time.Minute

	emptyLimit = 64 // blobs not had, more than those had
)

// Standing is what a provider has shown itself to be, since the start.
type Standing struct {
	Blobs  int64 // given
	Bytes  int64
	Empty  int64 // blobs it was said to have and had not
	Failed int64 // calls that failed or stalled
	Lies   int64 // answers that were not what was asked for

	waited  int       // times that GiveUp was waited for in vain, since something came
	avoided time.Time // not asked at all until then
	last    time.Time // asked last until then
}

// standings keeps the standing of every provider. Safe for concurrent use.
type standings struct {
	mu sync.Mutex // guards of
	of map[peer.ID]*Standing
}

func newStandings() *standings { return &standings{of: map[peer.ID]*Standing{}} }

// change lets f change a provider's standing.
func (s *standings) change(id peer.ID, f func(*Standing)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.of[id]
	if st == nil {
		st = &Standing{}
		s.of[id] = st
	}
	f(st)
}

// gave notes blobs that came and blobs that were not there.
func (s *standings) gave(id peer.ID, blobs int, bytes int64, empty int) {
	s.change(id, func(st *Standing) {
		st.Blobs += int64(blobs)
		st.Bytes += bytes
		st.Empty += int64(empty)
		if blobs > 0 {
			st.waited = 0
		}
		if empty > 0 && st.Empty > st.Blobs+emptyLimit {
			st.last = time.Now().Add(EmptyFor)
		}
	})
}

// failed notes a call that failed or stalled.
func (s *standings) failed(id peer.ID) {
	s.change(id, func(st *Standing) {
		st.Failed++
		st.last = time.Now().Add(FailFor)
	})
}

// patience is how long a provider may bring nothing when there is no other one: half as long each time that this was waited
// for in vain, so that a build waits for a provider that hangs no longer than twice GiveUp, and StallAfter a fetch.
func (s *standings) patience(id peer.ID) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	patience := GiveUp
	if st := s.of[id]; st != nil {
		patience >>= min(st.waited, 8)
	}
	return max(patience, StallAfter)
}

// hung notes that a provider's patience was waited for in vain.
func (s *standings) hung(id peer.ID) { s.change(id, func(st *Standing) { st.waited++ }) }

// lied notes an answer that was not what was asked for.
func (s *standings) lied(id peer.ID) {
	s.change(id, func(st *Standing) {
		st.Lies++
		st.avoided = time.Now().Add(LieFor)
	})
}

// order gives the providers that may be asked: those that failed just now last.
func (s *standings) order(ids []peer.ID) []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	good := make([]peer.ID, 0, len(ids))
	var last []peer.ID
	for _, id := range ids {
		st := s.of[id]
		switch {
		case slices.Contains(good, id) || slices.Contains(last, id):
		case st == nil || !now.Before(st.avoided) && !now.Before(st.last):
			good = append(good, id)
		case !now.Before(st.avoided):
			last = append(last, id)
		}
	}
	return append(good, last...)
}

// avoided reports whether a provider may not be asked now.
func (s *standings) avoided(id peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.of[id]
	return st != nil && time.Now().Before(st.avoided)
}

// all copies every standing.
func (s *standings) all() map[peer.ID]Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[peer.ID]Standing, len(s.of))
	for id, st := range maps.All(s.of) {
		out[id] = *st
	}
	return out
}
