package asset

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/record"
)

// readRun is how many entries of the log are listed at once.
const readRun = 1024

// read makes the index in memory from the records, in the order of their pushes. Records that cannot
// be read are removed. Only during Open.
func (x *Index) read() error {
	var entries []*entry
	var useless []record.Key
	for cursor := uint32(0); ; {
		list, next, err := x.log.Entries(cursor, readRun)
		if err != nil {
			return err
		}
		for _, l := range list {
			value, err := x.log.Read(l.Key)
			if err != nil && !errors.Is(err, record.ErrCorrupt) {
				return err
			}
			a, err := decode(value)
			if err != nil {
				useless = append(useless, l.Key)
				continue
			}
			entries = append(entries, &entry{key: l.Key, asset: a, size: int64(len(value))})
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	for _, k := range useless {
		if _, err := x.log.Delete(k); err != nil {
			return err
		}
	}
	slices.SortStableFunc(entries, func(a, b *entry) int { return cmp.Compare(a.asset.Pushed.UnixNano(), b.asset.Pushed.UnixNano()) })
	for _, e := range entries {
		x.show(e)
	}
	return x.makeRoom(0)
}

// keep pins what was kept before a restart, then forgets expired assets from time to time.
func (x *Index) keep(ctx context.Context) {
	x.restore(ctx)
	ticker := time.NewTicker(x.options.SweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			x.sweep()
		}
	}
}

// restore confirms every entry that holds nothing yet, the most recently used first. What fails for
// another reason than absent content is left to the next Fetch.
func (x *Index) restore(ctx context.Context) {
	x.mu.Lock()
	var waiting []*entry
	for place := x.order.Front(); place != nil; place = place.Next() {
		waiting = append(waiting, place.Value.(*entry))
	}
	x.mu.Unlock()
	for _, e := range waiting {
		if ctx.Err() != nil {
			return
		}
		x.mu.Lock()
		place := x.names[e.key]
		due := place != nil && place.Value.(*entry) == e && e.hold == nil
		x.mu.Unlock()
		if due && x.revive(ctx, e) {
			return
		}
	}
}

// revive confirms one entry, and reports whether the limit of content is reached: everything that
// waits then is less recent than what is held, and goes.
func (x *Index) revive(ctx context.Context, e *entry) (full bool) {
	if _, err := x.confirm(ctx, e); err != nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stat.Hits-- // nobody asked
	over := x.holds.bytes > x.options.MaxBytes
	// An error is the disk's; the entry then goes with the next push.
	return x.makeRoom(0) != nil || over
}

// sweep forgets what has expired.
func (x *Index) sweep() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return
	}
	now := x.options.Clock()
	for place := x.order.Front(); place != nil; {
		next := place.Next()
		if place.Value.(*entry).asset.expired(now) {
			if x.forget(place) != nil {
				return // the disk's error; Fetch refuses expired assets anyway
			}
			x.stat.Expired++
		}
		place = next
	}
}

// saturate adds two numbers that are not negative and stops at the largest int64.
func saturate(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
