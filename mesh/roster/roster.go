package roster

import (
	"context"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// saveEvery is the least time between two writes of the file.
const saveEvery = 5 * time.Second

// Roster is the members of the mesh. Make it with Open, end it with Close.
type Roster struct {
	file string // empty: nothing is kept

	mu       sync.Mutex // guards all below
	table    *table
	snapshot Snapshot      // the last one made
	stale    bool          // the table has moved since
	told     uint64        // version watchers were woken for
	changed  chan struct{} // closed and replaced with every new version
	saved    uint64        // version that stands in the file
	poke     *time.Timer   // for table.tick; nil: none is due
	ended    bool          // Close was called: no more timers

	stop    chan struct{}
	keeping sync.WaitGroup // of the goroutine that writes the file
	closed  sync.Once
}

// Open makes the roster of the node self from the file in dir; dir "" keeps nothing on disk. note is told,
// once, of a file that could not be read and was set aside.
func Open(dir string, self peer.ID, note func(error)) *Roster {
	r := &Roster{table: newTable(self), changed: make(chan struct{}), stop: make(chan struct{})}
	if dir == "" {
		return r
	}
	r.file = path(dir)
	members, err := load(r.file)
	if err != nil {
		note(err)
	}
	now := time.Now()
	for _, m := range members {
		r.table.restore(m, now)
	}
	r.stale, r.told, r.saved = true, r.table.version, r.table.version
	r.keeping.Go(r.keep)
	return r
}

// Close writes the file a last time. Calls after the first do nothing.
func (r *Roster) Close() error {
	var err error
	r.closed.Do(func() {
		close(r.stop)
		r.keeping.Wait()
		r.mu.Lock()
		r.ended = true
		if r.poke != nil {
			r.poke.Stop()
		}
		r.mu.Unlock()
		err = r.save()
	})
	return err
}

// Now is the roster at this moment.
func (r *Roster) Now() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale { // made only when somebody looks: in a storm of joins nobody does
		r.snapshot, r.stale = Snapshot{Version: r.table.version, Members: r.table.members()}, false
	}
	return r.snapshot
}

// Next waits until the roster is newer than version and gives it. Errors: the context's.
func (r *Roster) Next(ctx context.Context, version uint64) (Snapshot, error) {
	for {
		r.mu.Lock()
		newer, changed := r.table.version > version, r.changed
		r.mu.Unlock()
		if newer {
			return r.Now(), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Snapshot{}, ctx.Err()
		}
	}
}

// ClaimAlive takes in that gossip calls m alive, with a certificate that was checked.
func (r *Roster) ClaimAlive(m Member) {
	r.update(func(now time.Time) { r.table.claimAlive(m, now) })
}

// ClaimGone takes in that gossip calls one start of a member dead; or, with left, that the member itself
// said, signed, that this start ends.
func (r *Roster) ClaimGone(id peer.ID, boot string, left bool) {
	r.update(func(now time.Time) { r.table.claimGone(id, boot, left, now) })
}

// Seen takes in that the member just answered on an authenticated stream.
func (r *Roster) Seen(id peer.ID) {
	r.update(func(now time.Time) { r.table.seen(id, now) })
}

// Failed takes in that this node just could not reach the member; why says how, for people.
func (r *Roster) Failed(id peer.ID, why string) {
	r.update(func(now time.Time) { r.table.failed(id, why, now) })
}

// Forget drops a member, as after its revocation.
func (r *Roster) Forget(id peer.ID) {
	r.update(func(time.Time) { r.table.forget(id) })
}

// Doubtful lists the members somebody should try to reach, so that their state is known.
func (r *Roster) Doubtful() []peer.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.doubtful()
}

// update runs one step of the table, wakes watchers when it changed something, and sees to it that the
// table's clock is looked at when it asks.
func (r *Roster) update(step func(now time.Time)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	step(now)
	next := r.table.tick(now)
	r.stale = true
	if r.told != r.table.version {
		r.told = r.table.version
		close(r.changed)
		r.changed = make(chan struct{})
	}
	if r.poke != nil {
		r.poke.Stop()
		r.poke = nil
	}
	if !next.IsZero() && !r.ended {
		r.poke = time.AfterFunc(next.Sub(now), func() { r.update(func(time.Time) {}) })
	}
}

// keep writes the file after changes, at most once in saveEvery.
func (r *Roster) keep() {
	ticker := time.NewTicker(saveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-ticker.C:
			_ = r.save() // Close tries again, and reports
		}
	}
}

// save writes the file if it is old.
func (r *Roster) save() error {
	if r.file == "" {
		return nil
	}
	snapshot := r.Now()
	r.mu.Lock()
	old := r.saved != snapshot.Version
	r.mu.Unlock()
	if !old {
		return nil
	}
	if err := store(r.file, snapshot.Members); err != nil {
		return err
	}
	r.mu.Lock()
	r.saved = snapshot.Version
	r.mu.Unlock()
	return nil
}
