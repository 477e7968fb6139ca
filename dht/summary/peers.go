package summary

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// How Peers keeps up.
const (
	lookEvery = time.Second // how often the members are compared with who is followed
	retryMin  = 500 * time.Millisecond
	retryMax  = 30 * time.Second

	// A peer that claimed muteClaims results and had less than one in muteRatio of them is ignored
	// for muteFor. An honest one errs once in thousands of lookups, and between an eviction and its
	// next base.
	muteClaims = 128
	muteRatio  = 4
	muteFor    = 10 * time.Minute
)

// errPart is wrapped by every error about a piece that does not fit what was there.
var errPart = errors.New("malformed summary")

// Peers is everybody else's summaries. Make it with NewPeers and run it with Run.
type Peers struct {
	members locate.Members
	dialer  locate.Dialer

	mu   sync.RWMutex // guards everything below
	all  []*summary   // in no order
	byID map[peer.ID]*summary
}

// summary is what one peer says it has.
type summary struct {
	id       peer.ID
	epoch    uint64
	filter   filter
	delta    map[uint64]struct{}
	sequence uint64 // fingerprints of the delta taken, repeated ones included

	incoming []byte // of a base that is not complete yet
	expected uint64 // its length; incoming is nil when none is coming
	current  bool   // everything up to some moment after the stream began is here

	claimed, confirmed int
	muted              time.Time // ignored until then
}

// NewPeers makes Peers that know nothing.
func NewPeers(members locate.Members, dialer locate.Dialer) *Peers {
	return &Peers{members: members, dialer: dialer, byID: map[peer.ID]*summary{}}
}

// Find gives for each key the peers whose summary has it. It sends nothing.
func (p *Peers) Find(keys []cid.Key) [][]peer.ID {
	found := make([][]peer.ID, len(keys))
	p.mu.RLock()
	defer p.mu.RUnlock()
	now := time.Now()
	for _, s := range p.all {
		if !s.muted.IsZero() && now.Before(s.muted) {
			continue
		}
		for i, k := range keys {
			f := k.Fingerprint()
			if _, is := s.delta[f]; is || s.filter.contains(f) {
				found[i] = append(found[i], s.id)
			}
		}
	}
	return found
}

// Report tells how many of the keys a peer's summary was asked for by were really there.
func (p *Peers) Report(id peer.ID, claimed, confirmed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.byID[id]
	if s == nil {
		return
	}
	s.claimed += claimed
	s.confirmed += confirmed
	if s.claimed < muteClaims {
		return
	}
	if s.confirmed < s.claimed/muteRatio {
		s.muted = time.Now().Add(muteFor)
	}
	s.claimed, s.confirmed = 0, 0
}

// Stat is what Peers has at one moment.
type Stat struct {
	Peers int   // whose summary is here
	Muted int   // of them ignored
	Bytes int64 // of memory, by estimate
}

// Stat gives the state.
func (p *Peers) Stat() Stat {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var st Stat
	for _, s := range p.all {
		if !s.current {
			continue
		}
		st.Peers++
		if time.Now().Before(s.muted) {
			st.Muted++
		}
		const perEntry = 16
		st.Bytes += perEntry * int64(len(s.delta))
		if f := s.filter.wide; f != nil {
			st.Bytes += 4 * int64(len(f.Fingerprints))
		} else if f := s.filter.narrow; f != nil {
			st.Bytes += 2 * int64(len(f.Fingerprints))
		}
	}
	return st
}

// Run follows every member until ctx ends.
func (p *Peers) Run(ctx context.Context) {
	followed := map[peer.ID]context.CancelFunc{}
	var following sync.WaitGroup
	defer following.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		present := map[peer.ID]bool{}
		for _, m := range p.members.Members() {
			present[m.ID] = true
			if followed[m.ID] == nil {
				each, cancel := context.WithCancel(ctx)
				followed[m.ID] = cancel
				s := p.add(m.ID)
				following.Go(func() {
					defer cancel()
					p.follow(each, s)
				})
			}
		}
		for id, cancel := range followed {
			if !present[id] {
				cancel()
				delete(followed, id)
				p.drop(id)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range followed {
				cancel()
			}
			return
		case <-tick.C:
		}
	}
}

// add begins with a peer.
func (p *Peers) add(id peer.ID) *summary {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &summary{id: id, delta: map[uint64]struct{}{}}
	p.byID[id] = s
	p.all = append(p.all, s)
	return s
}

// drop forgets a peer.
func (p *Peers) drop(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.byID[id]
	delete(p.byID, id)
	for i := range p.all {
		if p.all[i] == s {
			p.all[i] = p.all[len(p.all)-1]
			p.all = p.all[:len(p.all)-1]
			return
		}
	}
}

// follow keeps one peer's summary up to date until ctx ends.
func (p *Peers) follow(ctx context.Context, s *summary) {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		took := p.stream(ctx, s)
		if took {
			wait = retryMin
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// stream takes one stream to its end and reports whether anything came.
func (p *Peers) stream(ctx context.Context, s *summary) (took bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := p.dialer.Control(ctx, s.id)
	if err != nil {
		return false
	}
	p.mu.Lock()
	q := &contentv1.SummaryRequest{Epoch: s.epoch, Sequence: s.sequence}
	s.incoming, s.expected, s.current = nil, 0, false
	p.mu.Unlock()
	parts, err := contentv1.NewContentClient(conn).Summary(ctx, q)
	if err != nil {
		return false
	}
	for {
		part, err := parts.Recv()
		if err == nil {
			err = p.take(s, part)
		}
		if errors.Is(err, errPart) || errors.Is(err, errBase) {
			p.reset(s) // what is there may be wrong: the next stream begins with nothing
		}
		if err != nil {
			return took
		}
		took = true
	}
}

// reset empties a summary.
func (p *Peers) reset(s *summary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.epoch, s.sequence, s.filter, s.delta = 0, 0, filter{}, map[uint64]struct{}{}
	s.incoming, s.expected, s.current = nil, 0, false
}

// take puts a piece to what is there. Errors: errPart, errBase. Only the goroutine that follows the peer
// calls it, so decoding may happen outside the lock.
func (p *Peers) take(s *summary, part *contentv1.SummaryPart) error {
	if part.Epoch == 0 {
		return fmt.Errorf("%w: no epoch", errPart)
	}
	if part.BaseSize > MaxBase || uint64(len(part.Base)) > part.BaseSize {
		return fmt.Errorf("%w: a base of %d bytes", errPart, part.BaseSize)
	}
	if s.incoming == nil && part.Epoch == s.epoch {
		return p.takeDelta(s, part)
	}
	if s.incoming == nil {
		s.incoming, s.expected = []byte{}, part.BaseSize
	}
	if part.BaseSize != s.expected || uint64(len(s.incoming)+len(part.Base)) > s.expected {
		return fmt.Errorf("%w: pieces of several bases", errPart)
	}
	s.incoming = append(s.incoming, part.Base...)
	if uint64(len(s.incoming)) < s.expected {
		if len(part.Base) == 0 {
			return fmt.Errorf("%w: an empty piece", errPart)
		}
		return nil
	}
	base, err := decodeBase(s.incoming)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.incoming, s.epoch, s.filter, s.sequence = nil, part.Epoch, base, 0
	s.delta, s.current = map[uint64]struct{}{}, true
	return nil
}

// takeDelta appends fingerprints.
func (p *Peers) takeDelta(s *summary, part *contentv1.SummaryPart) error {
	if part.Sequence != s.sequence || len(part.Base) > 0 {
		return fmt.Errorf("%w: fingerprint %d came after %d", errPart, part.Sequence, s.sequence)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(s.delta)+len(part.Added) > MaxDelta+minDelta {
		return fmt.Errorf("%w: a delta of more than %d", errPart, MaxDelta)
	}
	for _, f := range part.Added {
		s.delta[f] = struct{}{}
	}
	s.sequence += uint64(len(part.Added))
	s.current = true
	return nil
}
