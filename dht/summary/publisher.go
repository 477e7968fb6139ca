package summary

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// Bounds of one summary.
const (
	// MaxBase is the largest base in bytes: some 7 million results.
	MaxBase = 32 << 20
	// MaxDelta is the longest delta in fingerprints.
	MaxDelta = 1 << 18
	// Interval is how often a member that follows is told of what is new.
	Interval = 250 * time.Millisecond

	partBytes = 1 << 20 // of a base in one message
	partAdded = 1 << 16 // fingerprints of a delta in one message
)

// Publisher is the summary of what this node has. Safe for concurrent use.
type Publisher struct {
	width int

	mu      sync.Mutex // guards everything below
	live    map[uint64]struct{}
	removed int // fingerprints in base or delta that are no longer live
	epoch   uint64
	sizes   int // fingerprints in base
	base    []byte
	delta   []uint64 // append-only within an epoch: readers hold prefixes
	changed chan struct{}
}

// NewPublisher makes the summary of nothing. bits of a fingerprint are 16 or 32; 0 means 32.
func NewPublisher(bits int) *Publisher {
	if bits != narrow {
		bits = wide
	}
	// Another epoch than that of the last process, so that nobody takes one's delta for the other's.
	return &Publisher{width: bits, live: map[uint64]struct{}{}, epoch: rand.Uint64()>>1 + 1, changed: make(chan struct{})}
}

// Add puts keys into the summary.
func (p *Publisher) Add(keys []cid.Key) error { return p.add(fingerprints(keys)) }

// fingerprints gives those of keys.
func fingerprints(keys []cid.Key) []uint64 {
	all := make([]uint64, len(keys))
	for i, k := range keys {
		all[i] = k.Fingerprint()
	}
	return all
}

// add puts fingerprints into the summary.
func (p *Publisher) add(all []uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.delta)
	for _, f := range all {
		if _, known := p.live[f]; !known {
			p.live[f] = struct{}{}
			p.delta = append(p.delta, f)
		}
	}
	if len(p.delta) == before {
		return nil
	}
	err := p.rebuild(false)
	p.tell()
	return err
}

// Remove takes keys out. Members see it when the next base is made.
func (p *Publisher) Remove(keys []cid.Key) error { return p.remove(fingerprints(keys)) }

// remove takes fingerprints out.
func (p *Publisher) remove(all []uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range all {
		if _, known := p.live[f]; known {
			delete(p.live, f)
			p.removed++
		}
	}
	epoch := p.epoch
	err := p.rebuild(false)
	if p.epoch != epoch {
		p.tell()
	}
	return err
}

// Flush makes a new base now if anything was removed since the last.
func (p *Publisher) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed == 0 {
		return nil
	}
	err := p.rebuild(true)
	p.tell()
	return err
}

// Len is how many keys the summary is of.
func (p *Publisher) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.live)
}

// tell wakes everybody who follows. mu is held.
func (p *Publisher) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// The delta may grow to a quarter of the base, and an eighth may be outdated, before a new base is
// made: so a mesh that only grows sends each fingerprint about five times over.
const (
	minDelta   = 2048
	minRemoved = 256
)

// rebuild makes a new base when it is time, or at once. mu is held.
func (p *Publisher) rebuild(now bool) error {
	if !now && len(p.delta) <= max(minDelta, min(p.sizes/4, MaxDelta)) && p.removed <= max(minRemoved, len(p.live)/8) {
		return nil
	}
	all := slices.AppendSeq(make([]uint64, 0, len(p.live)), maps.Keys(p.live))
	base, err := encodeBase(p.width, all)
	if err != nil {
		return err
	}
	if len(base) > MaxBase {
		base = nil // nobody would take it: others find less here
	}
	p.base, p.sizes, p.delta, p.removed = base, len(all), nil, 0
	p.epoch++
	return nil
}

// state is a summary at one moment.
type state struct {
	epoch   uint64
	base    []byte
	delta   []uint64
	changed <-chan struct{}
	over    bool // nothing comes any more from where this is from
}

func (p *Publisher) state() state {
	p.mu.Lock()
	defer p.mu.Unlock()
	return state{epoch: p.epoch, base: p.base, delta: slices.Clip(p.delta), changed: p.changed}
}

// exact is an exact base of what the summary is of now, which the delta changes no more. An epoch that is over
// has none.
func (p *Publisher) exact(epoch uint64) (base []byte, ok bool) {
	p.mu.Lock()
	if p.epoch != epoch {
		p.mu.Unlock()
		return nil, false
	}
	all := slices.AppendSeq(make([]uint64, 0, len(p.live)), maps.Keys(p.live))
	p.mu.Unlock()
	if base = encodeExact(all); len(base) > MaxBase {
		base = nil // as in rebuild
	}
	return base, true
}

// Follow sends what a member lacks who has the delta of an epoch up to a sequence number, and then what
// is new, until ctx ends or send fails.
func (p *Publisher) Follow(ctx context.Context, q *contentv1.SummaryRequest, send func(*contentv1.SummaryPart) error) error {
	exact := p.exact
	if !q.Exact {
		exact = nil
	}
	return follow(ctx, q, source{p.state, exact}, send)
}

// source is where a summary comes from.
type source struct {
	state func() state
	exact func(epoch uint64) (base []byte, ok bool) // gives a base of fingerprints instead of the state's; nil: that one does
}

// follow is Publisher.Follow of any source. Errors: ErrNoBridge when the source is over.
func follow(ctx context.Context, q *contentv1.SummaryRequest, from source, send func(*contentv1.SummaryPart) error) error {
	epoch, sequence := q.Epoch, q.Sequence
	for first := true; ; first = false {
		s := from.state()
		if s.over {
			return ErrNoBridge
		}
		if s.epoch != epoch || sequence > uint64(len(s.delta)) {
			if from.exact != nil {
				var ok bool
				if s.base, ok = from.exact(s.epoch); !ok {
					continue // another epoch has begun in between
				}
			}
			if err := sendBase(s, send); err != nil {
				return err
			}
			epoch, sequence = s.epoch, 0
		} else if first && sequence == uint64(len(s.delta)) {
			// Something is sent at once: the follower learns that it is up to date.
			if err := send(&contentv1.SummaryPart{Epoch: epoch, Sequence: sequence}); err != nil {
				return err
			}
		}
		for sequence < uint64(len(s.delta)) {
			part := s.delta[sequence:min(sequence+partAdded, uint64(len(s.delta)))]
			if err := send(&contentv1.SummaryPart{Epoch: epoch, Sequence: sequence, Added: part}); err != nil {
				return err
			}
			sequence += uint64(len(part))
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(Interval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendBase sends a base in pieces, at least one.
func sendBase(s state, send func(*contentv1.SummaryPart) error) error {
	for rest, first := s.base, true; first || len(rest) > 0; first = false {
		n := min(partBytes, len(rest))
		if err := send(&contentv1.SummaryPart{Epoch: s.epoch, BaseSize: uint64(len(s.base)), Base: rest[:n]}); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}
