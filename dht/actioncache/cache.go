package actioncache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
	"github.com/buildmesh/buildmesh/dht/tree"
)

var (
	// ErrNotFound means that there is no complete result: none is known, or something it refers to
	// is not in the blob store.
	ErrNotFound = errors.New("action result not found")
	// ErrUncacheable means that a result must not be cached: its exit code is not 0.
	ErrUncacheable = errors.New("action result is not cacheable")
	// ErrInvalid means that a result is malformed.
	ErrInvalid = errors.New("invalid action result")
)

// Root names what an action could see besides its declared inputs: a host's fingerprint, or one of
// the two below.
type Root [32]byte

var (
	// Hermetic is the Root of actions whose input root is the whole file system.
	Hermetic = Root{}
	// Client is the Root of results that a client made itself and uploaded.
	Client = Root{0: 'c', 1: 'l', 2: 'i', 3: 'e', 4: 'n', 5: 't'}
)

// Key is what a result is found by. Results refer to blobs by the digest function of Action.
type Key struct {
	Action digest.Digest
	Root   Root
}

// Blobs is what the cache needs of the blob store.
type Blobs interface {
	// Missing gives those of ds that are absent and extends the lifetimes of the others.
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
	// GetBatch gives contents in order, nil for a blob that is absent.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
	// Removals grows whenever a blob leaves the store.
	Removals() uint64
}

// Options shape a Cache; zero values mean the defaults told at each field.
type Options struct {
	// MaxBytes limits the disk space of records. Default: 1 GiB, about a million small results.
	MaxBytes int64
	// MaxMemory limits the memory for results recently found complete, in bytes by estimate.
	// Default: 64 MiB.
	MaxMemory int64
	// TouchEvery is how often the lifetimes of a result's blobs are extended when it is asked for
	// again and again. It must be well below the blob store's lease. Default: 1 minute.
	TouchEvery time.Duration
	// Trees bounds output directories. Default: tree.DefaultLimits.
	Trees tree.Limits
	// Clock tells the time. Default: time.Now.
	Clock func() time.Time
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 64 << 20
	}
	if o.TouchEvery <= 0 {
		o.TouchEvery = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o
}

// Cache is an open cache of action results.
type Cache struct {
	options Options
	blobs   Blobs
	log     *record.Log
	memory  *memory

	hits, warm, misses, incomplete, unreadable atomic.Int64
}

// Stat is a cache's state at one moment.
type Stat struct {
	Entries    int64 // records
	Bytes      int64 // disk space of records
	MaxBytes   int64
	Hits       int64 // since Open
	Warm       int64 // hits that needed no check
	Misses     int64 // since Open, those below included
	Incomplete int64 // misses because a blob is absent
	Unreadable int64 // misses because the record is damaged or not understood
	Memory     int64 // bytes, by estimate
}

// Open opens or makes the cache in dir, beside the blob store blobs. Errors: record.ErrLocked while
// another process has dir open.
func Open(dir string, blobs Blobs, o Options) (*Cache, error) {
	o = o.withDefaults()
	log, err := record.Open(dir, record.Options{MaxBytes: o.MaxBytes, Clock: o.Clock})
	if err != nil {
		return nil, fmt.Errorf("open action cache: %w", err)
	}
	return &Cache{options: o, blobs: blobs, log: log, memory: newMemory(o.MaxMemory)}, nil
}

// Close makes everything durable and gives the directory back.
func (c *Cache) Close() error { return c.log.Close() }

// Get gives the result stored under key if it is complete, and extends the lifetimes of everything it
// refers to. The message is shared: callers clone it before they change anything. Errors: ErrNotFound,
// or what the blob store or the disk failed with.
func (c *Cache) Get(ctx context.Context, key Key) (*repb.ActionResult, error) {
	if known := c.memory.get(key); known != nil {
		removals, now := c.blobs.Removals(), c.options.Clock()
		if known.fresh(removals, now, c.options.TouchEvery) {
			c.hits.Add(1)
			c.warm.Add(1)
			return known.result, nil
		}
		return c.recheck(ctx, key, known, removals, now)
	}
	epoch := c.memory.epoch(key)
	result, size, err := c.read(key)
	if err != nil {
		return nil, c.miss(key, err)
	}
	removals, now := c.blobs.Removals(), c.options.Clock()
	blobs, err := c.references(ctx, key.Action.Function(), result)
	if err == nil {
		err = c.present(ctx, blobs)
	}
	if err != nil {
		return nil, c.miss(key, err)
	}
	c.memory.add(key, newRemembered(result, blobs, size).checked(removals, now), epoch)
	c.hits.Add(1)
	return result, nil
}

// recheck asks again for everything a remembered result refers to.
func (c *Cache) recheck(ctx context.Context, key Key, known *remembered, removals uint64, now time.Time) (*repb.ActionResult, error) {
	if err := c.present(ctx, known.blobs); err != nil {
		c.memory.drop(key, known)
		return nil, c.miss(key, err)
	}
	if err := c.log.Lookup([]record.Key{recordKey(key)}, make([]record.Info, 1)); err != nil {
		return nil, fmt.Errorf("look up result of action %s: %w", key.Action.Short(), err)
	}
	known.checked(removals, now)
	c.hits.Add(1)
	return known.result, nil
}

// errIncomplete is a miss because of an absent blob.
var errIncomplete = errors.New("a blob it refers to is absent")

// present reports an absent blob as errIncomplete and extends the lifetimes of all.
func (c *Cache) present(ctx context.Context, blobs []digest.Digest) error {
	missing, err := c.blobs.Missing(ctx, blobs)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", errIncomplete, missing[0])
	}
	return nil
}

// read gets the result stored under key and its encoded size. Errors: ErrNotFound, errUnreadable.
func (c *Cache) read(key Key) (*repb.ActionResult, int, error) {
	values, err := c.log.Get([]record.Key{recordKey(key)})
	switch {
	case errors.Is(err, record.ErrCorrupt):
		return nil, 0, fmt.Errorf("%w: %w", errUnreadable, err)
	case err != nil:
		return nil, 0, err
	case !values[0].Found:
		return nil, 0, ErrNotFound
	}
	encoded, err := openEnvelope(key, values[0].Data)
	if err != nil {
		return nil, 0, err
	}
	result := &repb.ActionResult{}
	if err := proto.Unmarshal(encoded, result); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return result, len(encoded), nil
}

// miss counts a failed Get and says what the caller shall know of it.
func (c *Cache) miss(key Key, err error) error {
	switch {
	case errors.Is(err, errIncomplete):
		c.incomplete.Add(1)
	case errors.Is(err, errUnreadable), errors.Is(err, ErrInvalid):
		c.unreadable.Add(1)
	case !errors.Is(err, ErrNotFound):
		return fmt.Errorf("get result of action %s: %w", key.Action.Short(), err)
	}
	c.misses.Add(1)
	return &missError{action: key.Action, why: err}
}

// missError is a miss. Misses are the common case, tens of thousands a build, so it is put into words
// only when somebody reads it.
type missError struct {
	action digest.Digest
	why    error // ErrNotFound itself, or what makes a stored result useless
}

func (e *missError) Error() string {
	text := "get result of action " + e.action.Short() + ": " + ErrNotFound.Error()
	if e.why != ErrNotFound {
		text += ": " + e.why.Error()
	}
	return text
}

// Is makes every miss an ErrNotFound.
func (e *missError) Is(target error) bool { return target == ErrNotFound }

// Unwrap gives the reason.
func (e *missError) Unwrap() error { return e.why }

// Put stores a result under key and replaces what was there. It does not look whether the result is
// complete: Get does. Errors: ErrUncacheable, ErrInvalid when a digest in it is malformed,
// record.ErrFull, record.ErrTooLarge.
func (c *Cache) Put(_ context.Context, key Key, result *repb.ActionResult) error {
	if err := c.put(key, result); err != nil {
		return fmt.Errorf("put result of action %s: %w", key.Action.Short(), err)
	}
	return nil
}

func (c *Cache) put(key Key, result *repb.ActionResult) error {
	if result.GetExitCode() != 0 {
		return fmt.Errorf("exit code %d: %w", result.ExitCode, ErrUncacheable)
	}
	if _, err := named(key.Action.Function(), result); err != nil {
		return err
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(result)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	value := sealEnvelope(key, c.options.Clock(), encoded)
	if err := c.log.Put([]record.Item{{Key: recordKey(key), Value: value}}); err != nil {
		return err
	}
	c.memory.forget(key)
	return nil
}

// Delete removes what is stored under key, if anything.
func (c *Cache) Delete(key Key) error {
	_, err := c.log.Delete(recordKey(key))
	c.memory.forget(key)
	if err != nil {
		return fmt.Errorf("delete result of action %s: %w", key.Action.Short(), err)
	}
	return nil
}

// Stat gives the cache's state.
func (c *Cache) Stat() Stat {
	l := c.log.Stat()
	return Stat{
		Entries: l.Entries, Bytes: l.Live + l.Dead, MaxBytes: l.MaxBytes,
		Hits: c.hits.Load(), Warm: c.warm.Load(), Misses: c.misses.Load(),
		Incomplete: c.incomplete.Load(), Unreadable: c.unreadable.Load(), Memory: c.memory.bytes(),
	}
}
