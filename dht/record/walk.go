package record

import "fmt"

// Entry is a key with what is stored under it.
type Entry struct {
	Key Key
	Info
}

// Entries gives up to n entries from a cursor on, 0 for the first call, and the next cursor, 0 at
// the end. Entries that are there throughout are given exactly once; the order means nothing.
func (l *Log) Entries(cursor uint32, n int) ([]Entry, uint32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, ErrClosed
	}
	entries := make([]Entry, 0, n)
	p := max(cursor, 1)
	for ; p < l.index.high && len(entries) < n; p++ {
		if e := l.index.at(p); e.flags&flagUsed != 0 {
			entries = append(entries, Entry{e.key, e.info()})
		}
	}
	if p >= l.index.high {
		p = 0
	}
	return entries, p, nil
}

// Read reads one inline value without renewing its lease. Errors: ErrCorrupt, after which the value
// is removed; ErrClosed. A key without an inline value gives nil.
func (l *Log) Read(key Key) ([]byte, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	defer l.end()
	l.mu.Lock()
	p := l.index.find(&key)
	if p == 0 || l.index.at(p).flags&flagExternal != 0 {
		l.mu.Unlock()
		return nil, nil
	}
	e := l.index.at(p)
	s := l.segments[e.segment]
	frame := wanted{s, int64(e.offset), e.size, 0}
	err := l.openSegment(s)
	s.users++
	l.mu.Unlock()
	defer l.unclaim([]wanted{frame})
	if err != nil {
		return nil, err
	}
	values := make([]Value, 1)
	err = l.readFrames([]wanted{frame}, []Key{key}, values)
	return values[0].Data, err
}

// Reclaim frees n bytes of disk for the owner, after a write of its own failed for want of them,
// and reports whether it freed any.
func (l *Log) Reclaim(n int64) bool {
	if l.begin() != nil {
		return false
	}
	defer l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reclaim(n)
}

// Collect evicts down to the limits, compacts every segment that has waste worth it, syncs, and
// gives the bytes of disk freed. Errors: ErrFull when the limits cannot be kept.
func (l *Log) Collect() (int64, error) {
	if err := l.begin(); err != nil {
		return 0, err
	}
	defer l.end()
	l.mu.Lock()
	start := l.inlined + l.external
	full := l.room(0)
	var waste []uint32
	for _, s := range l.segments {
		if s.dead()*8 >= s.end && s.dead() > 0 {
			waste = append(waste, s.id)
		}
	}
	l.mu.Unlock()

	l.upkeep.Lock()
	defer l.upkeep.Unlock()
	for _, id := range waste {
		if err := l.compact(id); err != nil {
			return 0, fmt.Errorf("compact: %w", err)
		}
	}
	_, err := l.sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	freed := start - l.inlined - l.external
	if full != nil {
		return freed, full
	}
	return freed, err
}
