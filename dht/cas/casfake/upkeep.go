package casfake

import (
	"context"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Pin holds the present ones of ds until Release and gives those that are missing.
func (s *Store) Pin(ds []digest.Digest) (*cas.Pin, []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var held []*blob
	var missing []digest.Digest
	for _, d := range ds {
		b, ok := s.find(d)
		if !ok {
			missing = append(missing, d)
			continue
		}
		b.pins++
		held = append(held, b)
	}
	return cas.NewPin(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range held {
			b.pins--
		}
	}), missing
}

// Removals counts the blobs that left the store.
func (s *Store) Removals() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removals
}

// Stat gives the store's state.
func (s *Store) Stat() cas.Stat {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := cas.Stat{
		Blobs: int64(len(s.blobs)), Bytes: s.bytes, Reserved: s.reserved, MaxBytes: s.options.MaxBytes,
		Evicted: s.evicted, Corrupt: s.corrupt, Removals: s.removals,
	}
	for _, b := range s.blobs {
		if b.pins > 0 {
			st.Pinned++
		}
	}
	return st
}

// Large lists the blobs of at least so many bytes.
func (s *Store) Large(bytes int64) (large []digest.Digest, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, cas.ErrClosed
	}
	for d := range s.blobs {
		if d.Size() >= bytes {
			large = append(large, d)
		}
	}
	return large, nil
}

// Verify hashes every blob and removes those that do not match.
func (s *Store) Verify(ctx context.Context, _ cas.VerifyOptions) (cas.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var report cas.Report
	for d, b := range s.blobs {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		report.Blobs++
		report.Bytes += d.Size()
		if (cas.Blob{Digest: d, Data: b.data}).Check() != nil {
			report.Corrupt = append(report.Corrupt, d)
			s.corrupt++
			s.remove(b)
		}
	}
	return report, nil
}

// Collect evicts down to the limit and gives the bytes freed.
func (s *Store) Collect(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bytes
	err := s.room(0)
	return before - s.bytes, err
}

// Lose removes d as an eviction would, whatever its leases and pins. It reports whether d was present.
func (s *Store) Lose(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[d]
	if ok {
		s.remove(b)
	}
	return ok
}

// Damage flips a bit of d's stored content. It reports whether d was present.
func (s *Store) Damage(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[d]
	if ok {
		b.data[0] ^= 1
	}
	return ok
}

// FailWith makes every later write of a new blob fail with err; nil ends it.
func (s *Store) FailWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}
