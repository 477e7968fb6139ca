package record

import (
	"fmt"
)

const (
	// maxAppend is the most bytes of frames that go into one append.
	maxAppend = 4 << 20
	// maxRetries bounds the evictions for one write on a disk that others may fill meanwhile.
	maxRetries = 16
)

// Put stores items, replacing what their keys had. Items of up to 4 MiB together cost one append to
// a segment and one to the journal. When Put returns nil, a crash of the process loses none of
// them; on an error a prefix of them may be stored. Errors: ErrFull, ErrTooLarge, ErrClosed.
func (l *Log) Put(items []Item) error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.end()
	for len(items) > 0 {
		n, size := 0, int64(0)
		for n < len(items) {
			frame := frameSize(int64(len(items[n].Value)))
			if frame > l.options.SegmentBytes {
				return fmt.Errorf("value of %d bytes: %w", len(items[n].Value), ErrTooLarge)
			}
			if n > 0 && size+frame > min(maxAppend, l.options.SegmentBytes/4) {
				break
			}
			size += frame
			n++
		}
		if err := l.putGroup(items[:n], size); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// putGroup stores items whose frames are size bytes together.
func (l *Log) putGroup(items []Item, size int64) error {
	buf := make([]byte, 0, size)
	for i := range items {
		buf = appendFrame(buf, &items[i].Key, items[i].Value)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.room(size); err != nil {
		return err
	}
	return l.retry(size, func() error { return l.putFrames(items, buf) })
}

// retry does write again as long as it fails for want of disk space and eviction frees some.
// Errors: ErrFull. mu is held, and released while files change.
func (l *Log) retry(size int64, write func() error) error {
	err := write()
	for tries := 0; NoSpace(err) && tries < maxRetries && l.reclaim(size+minSegment); tries++ {
		err = write()
	}
	if NoSpace(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// putFrames writes frames and then tells of them. mu is held, and released during the write.
func (l *Log) putFrames(items []Item, frames []byte) error {
	s, off, err := l.writeFrames(frames)
	if err != nil {
		return err
	}
	defer l.doneWriting(s)
	lines := make([]byte, 0, len(items)*lineSize)
	at := off
	for i := range items {
		n := line{kind: kindPut, key: items[i].Key, segment: s.id, offset: uint32(at), size: int64(len(items[i].Value))}
		lines = n.append(lines)
		at += frameSize(n.size)
	}
	if err := l.write(lines, false); err != nil {
		return err
	}
	now := l.now()
	at = off
	for i := range items {
		size := int64(len(items[i].Value))
		l.setInline(&items[i].Key, s, at, size, now)
		at += frameSize(size)
	}
	return nil
}

// setInline points key's entry to a frame. mu is held.
func (l *Log) setInline(key *Key, s *segment, off, size int64, now uint32) {
	p := l.index.find(key)
	if p == 0 {
		p = l.enlist(key)
	} else {
		l.release(l.index.at(p))
	}
	e := l.index.at(p)
	e.flags &^= flagExternal | flagDoubled
	e.segment, e.offset, e.size = s.id, uint32(off), size
	e.used = 0
	l.touch(p, now)
	s.live += frameSize(size)
}

// release takes an entry's bytes out of the accounts. mu is held.
func (l *Log) release(e *entry) {
	if e.flags&flagExternal != 0 {
		l.external -= e.charge()
		return
	}
	if s := l.segments[e.segment]; s != nil {
		s.live -= frameSize(e.size)
		if s != l.active && wasteful(s) {
			l.nudge()
		}
	}
}

// writeFrames appends to the active segment and gives where. On success the segment counts a
// writer, which keeps compaction away until doneWriting. mu is held, and released during the write.
func (l *Log) writeFrames(frames []byte) (*segment, int64, error) {
	size := int64(len(frames))
	if l.active != nil && l.active.end+size > l.options.SegmentBytes && l.active.end > 0 {
		l.active = nil
	}
	if l.active == nil {
		s := &segment{id: l.nextID, path: segmentPath(l.dir, l.nextID)}
		if err := l.openSegment(s); err != nil {
			return nil, 0, err
		}
		l.segments[s.id] = s
		l.nextID++
		l.active = s
	}
	s := l.active
	if err := l.openSegment(s); err != nil {
		return nil, 0, err
	}
	off := s.end
	s.end += size
	l.inlined += size
	s.writers++
	s.users++
	l.mu.Unlock()
	_, err := s.file.WriteAt(frames, off)
	l.mu.Lock()
	s.dirty = true
	l.markDirty()
	if err == nil {
		return s, off, nil
	}
	l.doneWriting(s)
	if s.end == off+size { // nobody wrote behind: take the space back
		s.end = off
		l.inlined -= size
		s.file.Truncate(off)
	}
	if s == l.active {
		l.active = nil // a later frame must not stand behind a hole that may end the file
	}
	return nil, 0, fmt.Errorf("append to segment: %w", err)
}

func (l *Log) doneWriting(s *segment) {
	s.writers--
	l.doneUsing(s)
}

// doneUsing closes a dropped segment with its last user. mu is held.
func (l *Log) doneUsing(s *segment) {
	s.users--
	if s.dropped && s.users == 0 && s.file != nil {
		s.file.Close()
		s.file = nil
	}
}
