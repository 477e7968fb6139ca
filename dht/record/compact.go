package record

import (
	"cmp"
	"fmt"
	"slices"
)

// compactRun is how many bytes of frames compaction copies at once.
const compactRun = 1 << 20

// lodger is an entry that lives in the segment being compacted.
type lodger struct {
	key    Key
	offset int64
	size   int64
}

// compact copies what lives in a segment to the active one and removes it. The copies are durable
// before the originals go. upkeep is held, mu is not.
func (l *Log) compact(id uint32) error {
	l.mu.Lock()
	s := l.segments[id]
	if s == nil || s.writers > 0 {
		l.mu.Unlock()
		return nil
	}
	if s == l.active {
		l.active = nil
	}
	err := l.openSegment(s)
	s.users++
	lodgers := l.lodgers(s)
	l.mu.Unlock()

	for len(lodgers) > 0 && err == nil {
		n := 0
		for size := int64(0); n < len(lodgers) && size < compactRun; n++ {
			size += frameSize(lodgers[n].size)
		}
		err = l.moveFrames(s, lodgers[:n])
		lodgers = lodgers[n:]
	}
	if err == nil && s.moved {
		_, err = l.sync()
	}
	return l.dropSegment(s, err)
}

// lodgers lists what lives in s, in order of place. mu is held.
func (l *Log) lodgers(s *segment) []lodger {
	if s.live == 0 {
		return nil
	}
	var all []lodger
	for p := place(1); p < l.index.high; p++ {
		e := l.index.at(p)
		if e.flags&(flagUsed|flagExternal) == flagUsed && e.segment == s.id {
			all = append(all, lodger{e.key, int64(e.offset), e.size})
		}
	}
	slices.SortFunc(all, func(a, b lodger) int { return cmp.Compare(a.offset, b.offset) })
	return all
}

// moveFrames copies frames of s to the active segment and points their entries there.
func (l *Log) moveFrames(s *segment, lodgers []lodger) error {
	var frames []byte
	kept := lodgers[:0]
	for _, g := range lodgers {
		start := len(frames)
		frames = slices.Grow(frames, int(frameSize(g.size)))[:start+int(frameSize(g.size))]
		_, err := s.file.ReadAt(frames[start:], g.offset)
		if err == nil {
			var key Key
			key, _, err = decodeFrame(frames[start:])
			if err == nil && key != g.key {
				err = ErrCorrupt
			}
		}
		if err != nil {
			frames = frames[:start]
			l.condemn(g.key, wanted{s, g.offset, g.size, 0})
			continue
		}
		kept = append(kept, g)
	}
	if len(kept) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	to, off, err := l.writeFrames(frames)
	if err != nil {
		return fmt.Errorf("compact %s: %w", s.path, err)
	}
	defer l.doneWriting(to)
	return l.repoint(s, to, off, kept)
}

// repoint tells that lodgers of s stand in to from off on. Those that were removed or replaced
// meanwhile stay where they are. mu is held.
func (l *Log) repoint(s, to *segment, off int64, lodgers []lodger) error {
	var lines []byte
	type move struct {
		place  place
		offset int64
	}
	var moves []move
	for _, g := range lodgers {
		p := l.index.find(&g.key)
		if p != 0 {
			e := l.index.at(p)
			if e.flags&flagExternal == 0 && e.segment == s.id && int64(e.offset) == g.offset {
				n := line{kind: kindMoved, key: g.key, segment: to.id, offset: uint32(off), size: g.size}
				lines = n.append(lines)
				moves = append(moves, move{p, off})
			}
		}
		off += frameSize(g.size)
	}
	if err := l.write(lines, false); err != nil {
		return err
	}
	for _, m := range moves {
		e := l.index.at(m.place)
		s.live -= frameSize(e.size)
		to.live += frameSize(e.size)
		e.segment, e.offset = to.id, uint32(m.offset)
		s.moved = true
	}
	return nil
}

// dropSegment ends a compaction: when nothing lives in s any more, its file goes.
func (l *Log) dropSegment(s *segment, err error) error {
	l.mu.Lock()
	empty := err == nil && s.live == 0
	if empty {
		s.dropped = true
		delete(l.segments, s.id)
		l.inlined -= s.end
	}
	l.doneUsing(s)
	l.mu.Unlock()
	if !empty {
		return err
	}
	if err := l.options.Files.Remove(s.path); err != nil {
		return fmt.Errorf("remove segment: %w", err)
	}
	return nil
}
