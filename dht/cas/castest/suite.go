package castest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Writing is the part of a store that takes content.
type Writing interface {
	Put(ctx context.Context, d digest.Digest, data []byte) error
	PutBatch(ctx context.Context, blobs []cas.Blob) []error
	NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error)
	PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error)
}

// Reading is the part of a store that gives content.
type Reading interface {
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
	Get(ctx context.Context, d digest.Digest) ([]byte, error)
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error)
	Materialize(ctx context.Context, d digest.Digest, path string, executable bool) error
}

// Holding is the part of a store that decides what stays.
type Holding interface {
	Pin(ds []digest.Digest) (*cas.Pin, []digest.Digest)
	Contains(d digest.Digest) bool
	Removals() uint64
	Collect(ctx context.Context) (int64, error)
}

// Upkeep is the part of a store that its owner uses.
type Upkeep interface {
	Stat() cas.Stat
	Verify(ctx context.Context, o cas.VerifyOptions) (cas.Report, error)
	Close() error
}

// Store is all of it.
type Store interface {
	Writing
	Reading
	Holding
	Upkeep
}

// Opener makes an empty store; the suite closes it.
type Opener func(t *testing.T, o cas.Options) Store

// Clock tells a time that moves only by Advance. Safe for concurrent use.
type Clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

// NewClock starts at a fixed moment.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

// Now tells the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the time; a negative d moves it back.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Run runs the whole suite.
func Run(t *testing.T, open Opener) {
	tests := map[string]func(*testing.T, fixture){
		"empty blob is always there":           emptyBlob,
		"put then get, small and large":        putGet,
		"wrong content is refused":             wrongContent,
		"wrong size is another blob":           wrongSize,
		"functions do not mix":                 functions,
		"batch items are independent":          batch,
		"missing keeps order":                  missing,
		"writer is invisible before commit":    writerCommit,
		"writer verifies":                      writerVerifies,
		"abort leaves nothing":                 writerAbort,
		"two writers of one blob":              twoWriters,
		"reader gives ranges":                  readerRanges,
		"materialize makes read-only files":    materialize,
		"put file ingests":                     putFile,
		"put file refuses what is no file":     putFileRefuses,
		"eviction takes the least recent":      evictLeastRecent,
		"leases hold":                          leases,
		"pins hold":                            pins,
		"open readers hold":                    readersHold,
		"reservations count":                   reservations,
		"too large is refused":                 tooLarge,
		"clock steps are harmless":             clockSteps,
		"closed store answers closed":          closed,
		"verify finds all good":                verifyGood,
		"many at once":                         concurrent,
		"caller's buffers stay the caller's":   buffers,
		"removals tell of every removal":       removals,
		"missing on a cancelled context ends":  cancelled,
		"collect of a store in bounds is calm": collect,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, fixture{t: t, open: open, clock: NewClock()})
		})
	}
}

// fixture is what a test of the suite works with.
type fixture struct {
	t     *testing.T
	open  Opener
	clock *Clock
}

// store opens a store with the fixture's clock.
func (f fixture) store(o cas.Options) Store {
	f.t.Helper()
	o.Clock = f.clock.Now
	s := f.open(f.t, o)
	f.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.t.Errorf("close: %v", err)
		}
	})
	return s
}
