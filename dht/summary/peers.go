package summary

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	retryFar  = 2 * time.Second // at most, for what comes from another site: another bridge may have it

	// A peer that claimed muteClaims results and had less than one in muteRatio of them is ignored
	// for MuteFor. An honest one errs once in thousands of lookups, and between an eviction and its
	// next base.
	muteClaims = 128
	muteRatio  = 4
)

// MuteFor is how long a peer is ignored whose claims were too often empty.
const MuteFor = 10 * time.Minute

// errPart is wrapped by every error about a piece that does not fit what was there.
var errPart = errors.New("malformed summary")

// Peers is everybody else's summaries. Make it with NewPeers or NewSitePeers and run it with Run.
type Peers struct {
	members locate.Members
	dialer  locate.Dialer
	self    func() locate.Member // this node
	bridges func() []peer.ID     // those of this node's site
	union   *union               // told of every fingerprint, which are asked for themselves; nil: filters do

	mu   sync.RWMutex // guards everything below
	all  []*summary   // those of this node's site first
	byID map[peer.ID]*summary
}

// summary is what one peer says it has.
type summary struct {
	id       peer.ID
	far      bool   // a bridge's, of everything at its site
	relay    *relay // for the rest of this site, while this node is its bridge; nil unless far
	direct   bool   // the stream is the peer's own, not one that a bridge here passes on
	tried    int    // so many streams
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

// NewPeers makes Peers that know nothing, in a mesh of one site.
func NewPeers(members locate.Members, dialer locate.Dialer) *Peers {
	self := func() locate.Member { return locate.Member{} } // there is one site, and it has no name
	none := func() []peer.ID { return nil }
	return &Peers{members: members, dialer: dialer, self: self, bridges: none, byID: map[peer.ID]*summary{}}
}

// NewSitePeers makes Peers that know nothing, of a node that follows the members of its own site and the
// bridges of others.
func NewSitePeers(sites locate.Sites, dialer locate.Dialer) *Peers {
	p := NewPeers(sites, dialer)
	p.self, p.bridges = sites.Self, sites.Bridges
	return p
}

// Find gives for each key the peers whose summary has it, then the bridges of other sites at which somebody has
// it. It sends nothing.
func (p *Peers) Find(keys []cid.Key) [][]peer.ID { return p.find(keys, true) }

// Near gives for each key the peers at this node's site whose summary has it.
func (p *Peers) Near(keys []cid.Key) [][]peer.ID { return p.find(keys, false) }

func (p *Peers) find(keys []cid.Key, far bool) [][]peer.ID {
	found := make([][]peer.ID, len(keys))
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, s := range p.all {
		if s.far && !far {
			break
		}
		if !s.muted.IsZero() && time.Now().Before(s.muted) {
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
		s.muted = time.Now().Add(MuteFor)
	}
	s.claimed, s.confirmed = 0, 0
}

// Muted are the peers that are ignored now, because what they claimed was so often not there.
func (p *Peers) Muted() []peer.ID {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var ids []peer.ID
	for _, s := range p.all {
		if time.Now().Before(s.muted) {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// Stat is what Peers has at one moment.
type Stat struct {
	Peers int   // whose summary is here
	Muted int   // of them ignored
	Relay int   // of them passed on to the rest of this node's site
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
		if s.far {
			n, live := s.relay.size()
			st.Bytes += n
			if live {
				st.Relay++
			}
		}
		const perEntry = 16
		st.Bytes += perEntry * int64(len(s.delta))
		st.Bytes += 8 * int64(len(s.filter.exact))
		if f := s.filter.wide; f != nil {
			st.Bytes += 4 * int64(len(f.Fingerprints))
		} else if f := s.filter.narrow; f != nil {
			st.Bytes += 2 * int64(len(f.Fingerprints))
		}
	}
	return st
}

// following is a member being followed.
type following struct {
	cancel context.CancelFunc
	far    bool // it stands at another site
}

// Run follows every member until ctx ends.
func (p *Peers) Run(ctx context.Context) {
	followed := map[peer.ID]following{}
	var running sync.WaitGroup
	defer running.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		present, site := map[peer.ID]bool{}, p.self().Site
		for _, m := range p.members.Members() {
			f, is := followed[m.ID]
			if is && f.far != (m.Site != site) {
				continue // one of us has moved: it is dropped now and followed anew at the next look
			}
			present[m.ID] = true
			if !is {
				each, cancel := context.WithCancel(ctx)
				f = following{cancel, m.Site != site}
				followed[m.ID] = f
				s := p.add(m.ID, f.far)
				running.Go(func() {
					defer cancel()
					p.follow(each, s)
				})
			}
		}
		for id, f := range followed {
			if !present[id] {
				f.cancel()
				delete(followed, id)
				p.drop(id)
			}
		}
		select {
		case <-ctx.Done():
			for _, f := range followed {
				f.cancel()
			}
			return
		case <-tick.C:
		}
	}
}

// add begins with a peer.
func (p *Peers) add(id peer.ID, far bool) *summary {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &summary{id: id, far: far, delta: map[uint64]struct{}{}}
	p.byID[id] = s
	if far {
		s.relay = newRelay()
		p.all = append(p.all, s)
	} else {
		p.all = slices.Insert(p.all, 0, s)
	}
	return s
}

// drop forgets a peer.
func (p *Peers) drop(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.byID[id]
	if p.union != nil {
		p.union.replace(s, nil)
	}
	delete(p.byID, id)
	p.all = slices.DeleteFunc(p.all, func(o *summary) bool { return o == s })
}

// replace gives a summary another base, and no delta. p.mu is held.
func (p *Peers) replace(s *summary, epoch uint64, base filter) {
	if p.union != nil && p.byID[s.id] == s { // one that was dropped counts no more
		p.union.replace(s, base.exact)
	}
	s.epoch, s.filter, s.sequence, s.delta = epoch, base, 0, map[uint64]struct{}{}
}

// follow keeps one peer's summary up to date until ctx ends.
func (p *Peers) follow(ctx context.Context, s *summary) {
	most := retryMax
	if s.far {
		most = retryFar
	}
	for wait := retryMin; ; wait = min(2*wait, most) {
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
	from := s.id
	if s.far {
		var known bool
		if from, known = p.way(s); !known {
			return false
		}
		defer s.relay.end()
		var watching sync.WaitGroup
		defer watching.Wait()
		defer cancel()
		direct := s.direct
		watching.Go(func() { p.watch(ctx, from, direct, cancel) })
	}
	q := p.begin(s)
	if p.union != nil && s.id == p.self().ID {
		_ = p.union.own.Follow(ctx, q, func(part *contentv1.SummaryPart) error { return p.take(s, part) }) // until ctx ends
		return true
	}
	conn, err := p.dialer.Control(ctx, from)
	if err != nil {
		return false
	}
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

// begin gives what a stream is to ask for.
func (p *Peers) begin(s *summary) *contentv1.SummaryRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.incoming, s.expected, s.current = nil, 0, false
	q := &contentv1.SummaryRequest{Exact: p.union != nil, Site: s.far}
	if s.far && !s.direct {
		q.Of = s.id[:]
	}
	if s.direct && !s.relay.has(s.epoch, s.sequence) {
		s.epoch, s.sequence = 0, 0 // others at this site need all of it from here; what is here is looked up until then
	}
	q.Epoch, q.Sequence = s.epoch, s.sequence
	return q
}

// reset empties a summary.
func (p *Peers) reset(s *summary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replace(s, 0, filter{})
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
	if p.union != nil && (base.narrow != nil || base.wide != nil) {
		return fmt.Errorf("%w: a filter instead of fingerprints", errBase)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replace(s, part.Epoch, base)
	if s.direct {
		s.relay.rebase(part.Epoch, s.incoming)
	}
	s.incoming, s.current = nil, true
	return nil
}

// takeDelta appends fingerprints.
func (p *Peers) takeDelta(s *summary, part *contentv1.SummaryPart) error {
	if part.Sequence != s.sequence || len(part.Base) > 0 {
		return fmt.Errorf("%w: fingerprint %d came after %d", errPart, part.Sequence, s.sequence)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.sequence+uint64(len(part.Added)) > MaxDelta+minDelta { // repeated ones too: a relay keeps them
		return fmt.Errorf("%w: a delta of more than %d", errPart, MaxDelta)
	}
	var fresh []uint64
	for _, f := range part.Added {
		if _, known := s.delta[f]; !known && p.union != nil && !s.filter.contains(f) {
			fresh = append(fresh, f)
		}
		s.delta[f] = struct{}{}
	}
	if len(fresh) > 0 && p.byID[s.id] == s {
		p.union.add(fresh)
	}
	if s.direct {
		s.relay.add(part.Added)
	}
	s.sequence += uint64(len(part.Added))
	s.current = true
	return nil
}
