package record

import (
	"context"
	"fmt"
	"os"
	"time"
)

// bloat is how many lines beyond twice the entries make the journal worth rewriting.
const bloat = 64 << 10

// keep is the log's one goroutine: it syncs in time, compacts waste and rewrites the journal. It
// sleeps while nothing changes. Close ends it.
func (l *Log) keep(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	armed := false
	for {
		due := false
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
			due, armed = true, false
		}
		if l.tend(ctx, due) && !armed && l.options.SyncEvery > 0 {
			timer.Reset(l.options.SyncEvery)
			armed = true
		}
	}
}

// tend does the upkeep there is and reports whether something still waits for sync.
func (l *Log) tend(ctx context.Context, due bool) bool {
	l.upkeep.Lock()
	defer l.upkeep.Unlock()
	for ctx.Err() == nil {
		l.mu.Lock()
		s := l.mostWasteful()
		if s == nil || s == l.active || !wasteful(s) || l.closed {
			s = nil
		}
		l.mu.Unlock()
		if s == nil || l.compact(s.id) != nil {
			break
		}
	}
	l.mu.Lock()
	bloated := l.lines > 2*int64(l.index.count)+bloat
	l.mu.Unlock()
	if bloated {
		l.note(l.checkpoint())
	} else if due {
		_, err := l.sync()
		l.note(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirty
}

// note keeps the outcome of background work for Stat.
func (l *Log) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.syncErr = err
}

// Sync makes everything acknowledged so far durable against loss of power.
func (l *Log) Sync() error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.end()
	l.upkeep.Lock()
	defer l.upkeep.Unlock()
	_, err := l.sync()
	return err
}

// sync makes everything that the journal tells durable, then tells that, and gives the position in
// the journal up to which it holds. upkeep is held, mu is not.
func (l *Log) sync() (int64, error) {
	l.mu.Lock()
	l.dirty = false
	var segments []*segment
	for _, s := range l.segments {
		if s.dirty && s.file != nil {
			s.dirty = false
			s.users++
			segments = append(segments, s)
		}
	}
	keys := make([]Key, 0, len(l.unsynced))
	for key := range l.unsynced {
		keys = append(keys, key)
	}
	clear(l.unsynced)
	end := l.journal.end
	l.mu.Unlock()

	err := l.syncValues(segments, keys)
	l.mu.Lock()
	for _, s := range segments {
		s.dirty = s.dirty || err != nil
		l.doneUsing(s)
	}
	if err != nil {
		for _, key := range keys {
			l.unsynced[key] = struct{}{}
		}
	} else {
		mark := line{kind: kindSynced, size: end}
		err = l.journal.append(mark.append(nil), true)
		l.lines++
	}
	l.mu.Unlock()
	if err == nil {
		err = l.journal.file.Sync()
	}
	if err != nil {
		return 0, fmt.Errorf("sync: %w", err)
	}
	return end, nil
}

func (l *Log) syncValues(segments []*segment, keys []Key) error {
	for _, s := range segments {
		if err := s.file.Sync(); err != nil {
			return err
		}
	}
	if len(keys) > 0 {
		return l.options.Owner.Sync(keys)
	}
	return nil
}

// checkpoint rewrites the journal as one line per entry, least recently used first, and takes its
// place by rename. upkeep is held, mu is not.
//
// Everything before position from is durable, so the copied entries need no re-check; what came
// after is told again behind the mark. Telling a change twice is harmless: the last one counts.
func (l *Log) checkpoint() error {
	from, err := l.sync()
	if err != nil {
		return err
	}
	fresh, err := createJournal(l.options.Files, l.journalPath()+".new")
	if err != nil {
		return err
	}
	l.mu.Lock()
	count, err := l.writeEntries(fresh)
	l.mu.Unlock()
	if err == nil {
		err = fresh.file.Sync()
	}
	if err == nil {
		err = l.switchJournal(fresh, from, count)
	}
	if err != nil {
		fresh.file.Close()
		l.options.Files.Remove(l.journalPath() + ".new")
		return fmt.Errorf("rewrite journal: %w", err)
	}
	return l.syncDirectory()
}

// writeEntries writes what the index holds, and the files that are coming or going. mu is held: a
// million entries take about a fifth of a second, once in two million changes.
func (l *Log) writeEntries(j *journal) (count int64, err error) {
	buf := make([]byte, 0, 1<<20)
	put := func(n line) {
		buf = n.append(buf)
		count++
		if len(buf)+lineSize > cap(buf) && err == nil {
			err = j.append(buf, false)
			buf = buf[:0]
		}
	}
	opened := line{kind: kindOpened}
	boot := l.options.Boot()
	copy(opened.key[:], boot[:])
	put(opened)
	for key := range l.busy {
		put(line{kind: kindIntent, key: key})
	}
	for key := range l.stray {
		put(line{kind: kindIntent, key: key})
	}
	entry := func(p place) {
		e := l.index.at(p)
		put(line{kindKept, e.flags & (flagExternal | flagDoubled), e.key, e.segment, e.offset, e.size})
	}
	for p := l.index.oldest(); p != 0; p = l.index.newer(p) {
		entry(p)
	}
	for key := range l.pins {
		if p := l.index.find(&key); p != 0 {
			entry(p)
		}
	}
	if err == nil {
		err = j.append(buf, false)
	}
	return count + 1, err
}

// switchJournal tells the fresh journal what the old one was told from position from on, and puts
// it in the old one's place.
func (l *Log) switchJournal(fresh *journal, from, count int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.journal
	tail := make([]byte, old.end-from)
	if _, err := old.file.ReadAt(tail, from); err != nil {
		return err
	}
	mark := line{kind: kindSynced, size: fresh.end}
	lines := mark.append(nil)
	for ; len(tail) >= lineSize; tail = tail[lineSize:] {
		var n line
		if n.decode(tail) && n.kind != kindSynced { // positions of the old file mean nothing here
			lines = append(lines, tail[:lineSize]...)
		}
	}
	if err := fresh.append(lines, false); err != nil {
		return err
	}
	if err := l.options.Files.Rename(l.journalPath()+".new", l.journalPath()); err != nil {
		return err
	}
	l.journal = fresh
	l.lines = count + int64(len(lines)/lineSize)
	l.dirty = l.dirty || len(lines) > lineSize
	old.file.Close()
	return nil
}

// syncDirectory makes renames in the log's directory durable where the system can.
func (l *Log) syncDirectory() error {
	d, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	d.Sync() // not every system can sync a directory
	return nil
}
