package facts

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// bell wakes everybody who waits for a newer version of something. Its zero value is ready. The mutex of
// whoever has it guards it.
type bell struct {
	version uint64
	rung    chan struct{}
}

// ring makes a new version.
func (b *bell) ring() {
	b.version++
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

// wait gives a channel that is closed with the next version.
func (b *bell) wait() <-chan struct{} {
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

// Board is this node's own facts. Its zero value has none. It is safe for concurrent use.
type Board struct {
	mu    sync.Mutex // guards all below
	facts Facts
	bell  bell
}

// Set replaces the facts. Equal ones are no news.
func (b *Board) Set(f Facts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bell.version == 0 || !f.equal(b.facts) {
		b.facts = f
		b.bell.ring()
	}
}

// Next waits until the facts are newer than version and gives them. Errors: the context's.
func (b *Board) Next(ctx context.Context, version uint64) (Facts, uint64, error) {
	for {
		b.mu.Lock()
		facts, now, rung := b.facts, b.bell.version, b.bell.wait()
		b.mu.Unlock()
		if now > version {
			return facts, now, nil
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return Facts{}, 0, ctx.Err()
		}
	}
}

// Heard is what one member said last.
type Heard struct {
	Facts
	At   time.Time     // when it was heard, by this node's clock
	Skew time.Duration // how far its clock was ahead of this node's, not counting the way
}

// Book is what the others said. Its zero value is empty. It is safe for concurrent use.
type Book struct {
	mu    sync.Mutex // guards all below
	heard map[peer.ID]Heard
	bell  bell
}

// note keeps what a member said at now.
func (b *Book) note(id peer.ID, f Facts, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.heard == nil {
		b.heard = make(map[peer.ID]Heard)
	}
	h := Heard{Facts: f, At: now}
	if !f.Clock.IsZero() {
		h.Skew = f.Clock.Sub(now)
	}
	b.heard[id] = h
	b.bell.ring()
}

// forget drops what a member said: it is connected no more.
func (b *Book) forget(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.heard[id]; known {
		delete(b.heard, id)
		b.bell.ring()
	}
}

// Get gives what a member said last; false when it is not connected.
func (b *Book) Get(id peer.ID) (Heard, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, known := b.heard[id]
	return h, known
}

// Next waits until the book is newer than version and gives all of it. Errors: the context's.
func (b *Book) Next(ctx context.Context, version uint64) (map[peer.ID]Heard, uint64, error) {
	for {
		b.mu.Lock()
		now, rung := b.bell.version, b.bell.wait()
		heard := maps.Clone(b.heard)
		b.mu.Unlock()
		if now > version {
			return heard, now, nil
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}
