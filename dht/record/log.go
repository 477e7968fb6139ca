package record

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// tick is the unit of the time of use: coarse enough that 32 bits last 13 years of one process.
const tick = 100 * time.Millisecond

// Log is an open directory of records. Safe for concurrent use.
//
// Lock order: upkeep before mu. mu is never held over a write to a segment, an fsync or a call to
// the owner; it is held over appends to the journal, so that the journal tells changes in the order
// in which they became visible.
type Log struct {
	dir     string
	options Options
	lock    *os.File

	// upkeep is held by whoever syncs, compacts or rewrites the journal: one at a time.
	upkeep sync.Mutex

	mu       sync.Mutex // guards everything below
	changed  sync.Cond  // signalled when busy, inflight or a key's standing changes
	index    *index
	journal  *journal
	lines    int64 // in the journal
	segments map[uint32]*segment
	active   *segment // receives new frames; nil when the next one starts a new segment
	nextID   uint32
	pins     map[Key]int
	busy     map[Key]int      // keys whose files are coming (> 0) or going (-1)
	gone     []Key            // removals of files not told to the journal yet
	stray    map[Key]struct{} // files the owner could not remove
	unsynced map[Key]struct{} // external values put since the last sync
	inflight int              // calls that use files
	closed   bool
	cutOff   bool // power was lost before this Open
	syncErr  error

	external int64 // bytes of external values, second copies included
	inlined  int64 // bytes of segment files
	reserved int64 // bytes promised
	removals uint64
	evicted  int64
	corrupt  int64
	lost     int64

	disk    freeDisk
	elapsed time.Duration // time passed for leases
	seen    time.Time     // the clock's last answer
	dirty   bool          // something waits for sync
	wake    chan struct{} // tells the keeper that dirty became true, or that there is waste
	stop    context.CancelFunc
	kept    sync.WaitGroup // the keeper
}

// Stat is a log's state at one moment; sizes in bytes.
type Stat struct {
	Entries  int64
	Live     int64 // disk space of values
	Dead     int64 // disk space of removed values waiting for compaction
	Reserved int64
	Pinned   int64
	Segments int64
	Journal  int64
	Memory   int64
	MaxBytes int64
	Evicted  int64
	Corrupt  int64 // values found damaged and removed
	Lost     int64 // what Open found that cannot be read any more; a last line that was never acknowledged is none
	Removals uint64
	SyncErr  error // the last sync's error; nil when it succeeded
}

// Stat gives the log's state.
func (l *Log) Stat() Stat {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := Stat{
		Entries: int64(l.index.count), Live: l.external, Reserved: l.reserved, Pinned: int64(len(l.pins)),
		Segments: int64(len(l.segments)), Journal: l.journal.end, Memory: l.index.memoryBytes(),
		MaxBytes: l.options.MaxBytes, Evicted: l.evicted, Corrupt: l.corrupt, Lost: l.lost, Removals: l.removals, SyncErr: l.syncErr,
	}
	for _, s := range l.segments {
		st.Live += s.live
		st.Dead += s.dead()
	}
	return st
}

// Removals counts the entries that left: as long as it does not grow, what was present still is.
func (l *Log) Removals() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.removals
}

// CutOff reports whether the log was found as a loss of power leaves it. Files of the owner may then
// be there without an entry, and entries without a file, if they were removed just before.
func (l *Log) CutOff() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cutOff
}

// now gives the time of use in ticks. Steps back of the clock make no time pass. mu is held.
func (l *Log) now() uint32 {
	t := l.options.Clock()
	if d := t.Sub(l.seen); d > 0 {
		l.elapsed += d
	}
	l.seen = t
	return uint32(l.elapsed/tick) + 1
}

// leaseTicks is the lease in ticks, rounded up; touchTicks is how old a time of use may be before
// it is renewed. An entry is safe for their sum, so that every touch gives at least a full lease.
func (l *Log) leaseTicks() uint32 { return uint32((max(l.options.Lease, 0) + tick - 1) / tick) }
func (l *Log) touchTicks() uint32 { return l.leaseTicks() / 16 }

// touch makes the entry at p the most recently used. The list stays ordered by time of use, which
// lets eviction stop at the first leased entry. mu is held.
func (l *Log) touch(p place, now uint32) {
	e := l.index.at(p)
	if e.flags&flagPinned != 0 || (e.used != 0 && now-e.used <= l.touchTicks() && l.options.Lease > 0) {
		return
	}
	l.index.unlink(p)
	e.used = now
	l.index.pushFront(p)
}

// begin enters a call that uses files; end leaves it.
func (l *Log) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.inflight++
	return nil
}

func (l *Log) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inflight--
	l.changed.Broadcast()
}

// Close waits for calls that are going on, writes the order of use, makes everything durable and
// gives the directory back. Later calls fail with ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for l.inflight > 0 {
		l.changed.Wait()
	}
	l.mu.Unlock()
	l.stop()
	l.kept.Wait()

	l.upkeep.Lock()
	defer l.upkeep.Unlock()
	err := l.checkpoint()
	if NoSpace(err) { // the journal as it is will do; the order of use since the last rewrite is lost
		_, err = l.sync()
	}
	if err == nil {
		err = l.seal()
	}
	l.closeFiles()
	return err
}

// seal writes the line that says that everything before it is durable. upkeep is held.
func (l *Log) seal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := line{kind: kindClosed}
	if err := l.journal.append(last.append(nil), true); err != nil {
		return err
	}
	if err := l.journal.file.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	return nil
}

// closeFiles lets go of every file; what fails to close was synced before.
func (l *Log) closeFiles() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.file != nil {
			s.file.Close()
		}
	}
	if l.journal != nil {
		l.journal.file.Close()
	}
	l.lock.Close()
}

func (l *Log) journalPath() string { return filepath.Join(l.dir, "journal") }

// write appends lines to the journal, with the removals that wait to be told. mu is held.
func (l *Log) write(lines []byte, urgent bool) error {
	for i := range l.gone {
		n := line{kind: kindGone, key: l.gone[i]}
		lines = n.append(lines)
	}
	if err := l.journal.append(lines, urgent); err != nil {
		return err
	}
	l.gone = l.gone[:0]
	l.lines += int64(len(lines) / lineSize)
	l.markDirty()
	return nil
}

// markDirty has the keeper sync in time. mu is held.
func (l *Log) markDirty() {
	if !l.dirty {
		l.dirty = true
		l.nudge()
	}
}

// nudge wakes the keeper.
func (l *Log) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
