package asset

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Options shape an Index; zero values mean the defaults told at each field.
type Options struct {
	// MaxBytes limits the content that assets keep in the blob store. It must be well below the
	// store's own limit. Default: 10 GiB.
	MaxBytes int64
	// MaxNames limits the names, each URI of an asset being one. Default: 100,000.
	MaxNames int
	// MaxRecords limits the bytes of all assets' records. Default: 256 MiB.
	MaxRecords int64
	// SweepEvery is how often expired assets are looked for. Default: 1 minute.
	SweepEvery time.Duration
	// Trees bounds directories. Default: tree.DefaultLimits.
	Trees tree.Limits
	// Clock tells the time. Default: time.Now.
	Clock func() time.Time
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 10 << 30
	}
	if o.MaxNames <= 0 {
		o.MaxNames = 100_000
	}
	if o.MaxRecords <= 0 {
		o.MaxRecords = 256 << 20
	}
	if o.SweepEvery <= 0 {
		o.SweepEvery = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o
}

// Index is an open index of assets.
type Index struct {
	options Options
	blobs   Blobs
	log     *record.Log
	stop    context.CancelFunc
	keeping sync.WaitGroup // the keeper

	mu      sync.Mutex // guards everything below, and writes to log
	names   map[record.Key]*list.Element
	order   *list.List // of *entry, most recently used first
	holds   holds
	records int64 // bytes
	closed  bool
	stat    Stat
}

// entry is an asset under one of its names.
type entry struct {
	key     record.Key
	asset   *Asset
	size    int64  // of its record
	hold    *hold  // nil after a restart until its closure is pinned again
	checked uint64 // the store's Removals before the last time everything was there
}

// Stat is an index's state at one moment.
type Stat struct {
	Names      int
	Held       int64 // bytes of content pinned
	Records    int64 // bytes of records
	Hits       int64 // since Open
	Misses     int64
	Incomplete int64 // assets forgotten because content was absent
	Pushed     int64
	PushedOut  int64 // names that went to keep the limits
	Expired    int64
}

// Open opens or makes the index in dir, beside the blob store blobs. Errors: record.ErrLocked while
// another process has dir open.
func Open(dir string, blobs Blobs, o Options) (*Index, error) {
	o = o.withDefaults()
	log, err := record.Open(dir, record.Options{Clock: o.Clock})
	if err != nil {
		return nil, fmt.Errorf("open asset index: %w", err)
	}
	x := &Index{
		options: o, blobs: blobs, log: log, names: map[record.Key]*list.Element{}, order: list.New(),
		holds: holds{pins: blobs, directories: map[digest.Digest]*held{}},
	}
	if err := x.read(); err != nil {
		log.Close()
		return nil, fmt.Errorf("open asset index: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	x.stop = stop
	x.keeping.Go(func() { x.keep(ctx) })
	return x, nil
}

// Close ends the keeper, lets go of all content, and makes the records durable.
func (x *Index) Close() error {
	x.mu.Lock()
	already := x.closed
	x.closed = true
	x.mu.Unlock()
	if already {
		return nil
	}
	x.stop()
	x.keeping.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	for place := x.order.Front(); place != nil; place = place.Next() {
		x.release(place.Value.(*entry))
	}
	return x.log.Close()
}

// Push remembers a under all of its names and keeps its content from now on. What the names led to
// before is replaced. A zero Pushed is now. Errors: ErrInvalid, *tree.MissingError with all content
// that is absent, *tree.InvalidError, ErrTooLarge, the store's and the disk's.
func (x *Index) Push(ctx context.Context, a Asset) error {
	if err := x.push(ctx, &a); err != nil {
		return fmt.Errorf("push asset %s: %w", a.Digest.Short(), err)
	}
	return nil
}

func (x *Index) push(ctx context.Context, a *Asset) error {
	if a.Pushed.IsZero() {
		a.Pushed = x.options.Clock()
	}
	if err := a.validate(); err != nil {
		return err
	}
	value, err := encode(a)
	if err != nil {
		return err
	}
	removals := x.blobs.Removals()
	needed, err := load(ctx, x.blobs, a, x.options.Trees)
	if err != nil {
		return err
	}
	if n := needed.bytes(); n > x.options.MaxBytes {
		return fmt.Errorf("its content has %d bytes, assets may keep %d: %w", n, x.options.MaxBytes, ErrTooLarge)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return ErrClosed
	}
	entries, err := x.enter(a, needed, int64(len(value)), removals)
	if err != nil {
		return err
	}
	items := make([]record.Item, len(entries))
	for i, e := range entries {
		items[i] = record.Item{Key: e.key, Value: value}
	}
	if err := x.log.Put(items); err != nil {
		for _, e := range entries {
			x.release(e)
		}
		return err
	}
	for _, e := range entries {
		x.show(e)
	}
	x.stat.Pushed++
	return x.makeRoom(len(entries))
}

// bytes is the content's size, directories included; shared parts count once for each tree.
func (c *closure) bytes() int64 {
	n := int64(0)
	for _, d := range c.blobs {
		n = saturate(n, d.Size())
	}
	for _, t := range c.trees {
		for _, ds := range [][]digest.Digest{t.Directories(), t.Files()} {
			for _, d := range ds {
				n = saturate(n, d.Size())
			}
		}
	}
	return n
}

// enter makes an entry with a hold of its own for each of a's URIs. mu is held.
func (x *Index) enter(a *Asset, needed *closure, size int64, removals uint64) ([]*entry, error) {
	var entries []*entry
	for _, uri := range a.URIs {
		taken, err := x.holds.take(needed)
		if err != nil {
			for _, e := range entries {
				x.release(e)
			}
			return nil, err
		}
		k := key(a.Kind, a.Digest.Function(), uri, a.Qualifiers)
		entries = append(entries, &entry{key: k, asset: a, size: size, hold: taken, checked: removals})
	}
	return entries, nil
}

// show makes e what its key leads to. mu is held.
func (x *Index) show(e *entry) {
	if place := x.names[e.key]; place != nil {
		x.hide(place)
	}
	x.names[e.key] = x.order.PushFront(e)
	x.records += e.size
}

// hide takes an entry out of the index in memory and lets its content go. mu is held.
func (x *Index) hide(place *list.Element) {
	e := x.order.Remove(place).(*entry)
	delete(x.names, e.key)
	x.records -= e.size
	x.release(e)
}

// release lets the content of e go. mu is held.
func (x *Index) release(e *entry) {
	if e.hold != nil {
		x.holds.drop(e.hold)
		e.hold = nil
	}
}

// forget removes an entry for good. mu is held.
func (x *Index) forget(place *list.Element) error {
	k := place.Value.(*entry).key
	x.hide(place)
	_, err := x.log.Delete(k)
	return err
}

// makeRoom forgets the least recently used entries until the limits are kept, but not the first keep.
// mu is held.
func (x *Index) makeRoom(keep int) error {
	for x.order.Len() > keep && (x.order.Len() > x.options.MaxNames || x.records > x.options.MaxRecords || x.holds.bytes > x.options.MaxBytes) {
		if err := x.forget(x.order.Back()); err != nil {
			return err
		}
		x.stat.PushedOut++
	}
	return nil
}

// Fetch gives the first complete asset that the query's URIs lead to, and that URI. Asking makes it the
// most recently used. Errors: ErrNotFound, the store's and the disk's.
func (x *Index) Fetch(ctx context.Context, q Query) (*Asset, string, error) {
	for _, uri := range q.URIs {
		a, err := x.fetch(ctx, key(q.Kind, q.Function, uri, q.Qualifiers), q.Oldest)
		if err == nil {
			return a, uri, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, "", fmt.Errorf("fetch asset %.200q: %w", uri, err)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stat.Misses++
	return nil, "", fmt.Errorf("fetch %s: %w", q.Kind, ErrNotFound)
}

func (x *Index) fetch(ctx context.Context, k record.Key, oldest time.Time) (*Asset, error) {
	removals := x.blobs.Removals()
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil, ErrClosed
	}
	place := x.names[k]
	if place == nil {
		x.mu.Unlock()
		return nil, ErrNotFound
	}
	e := place.Value.(*entry)
	a, sure := e.asset, e.hold != nil && e.checked == removals
	now := x.options.Clock()
	switch {
	case a.expired(now):
		x.stat.Expired++
		err := x.forget(place)
		x.mu.Unlock()
		return nil, errors.Join(ErrNotFound, err)
	case a.Pushed.Before(oldest):
		x.mu.Unlock()
		return nil, ErrNotFound
	}
	x.order.MoveToFront(place)
	if sure {
		x.stat.Hits++
	}
	x.mu.Unlock()
	if sure {
		return a, nil
	}
	return x.confirm(ctx, e)
}

func (a *Asset) expired(now time.Time) bool { return !a.Expires.IsZero() && !now.Before(a.Expires) }

// confirm looks at all content of e, holds it, and gives the asset; or forgets it.
func (x *Index) confirm(ctx context.Context, e *entry) (*Asset, error) {
	removals := x.blobs.Removals()
	needed, err := load(ctx, x.blobs, e.asset, x.options.Trees)
	x.mu.Lock()
	defer x.mu.Unlock()
	place := x.names[e.key]
	current := place != nil && place.Value.(*entry) == e && !x.closed
	if err == nil && current && e.hold == nil {
		e.hold, err = x.holds.take(needed)
	}
	if err != nil {
		var missing *tree.MissingError
		if !errors.As(err, &missing) && !errors.Is(err, tree.ErrInvalid) {
			return nil, err
		}
		x.stat.Incomplete++
		if current {
			err = x.forget(place)
		} else {
			err = nil
		}
		return nil, errors.Join(ErrNotFound, err)
	}
	e.checked = removals
	x.stat.Hits++
	return e.asset, nil
}

// Stat gives the index's state.
func (x *Index) Stat() Stat {
	x.mu.Lock()
	defer x.mu.Unlock()
	st := x.stat
	st.Names, st.Held, st.Records = x.order.Len(), x.holds.bytes, x.records
	return st
}
