package record

import (
	"cmp"
	"fmt"
	"slices"
)

const (
	// lookupRun is how many keys are looked up under one hold of the mutex.
	lookupRun = 1024
	// readGap is the most bytes between two frames that are read over, and readRun the most bytes
	// read at once.
	readGap = 4 << 10
	readRun = 1 << 20
)

// Lookup tells what is stored under each key and renews the leases of what is.
func (l *Log) Lookup(keys []Key, infos []Info) error {
	for start := 0; start < len(keys); start += lookupRun {
		end := min(start+lookupRun, len(keys))
		if err := l.lookupRun(keys[start:end], infos[start:end]); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) lookupRun(keys []Key, infos []Info) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	now := l.now()
	for i := range keys {
		p := l.index.find(&keys[i])
		if p == 0 {
			infos[i] = Info{}
			continue
		}
		l.touch(p, now)
		infos[i] = l.index.at(p).info()
	}
	return nil
}

func (e *entry) info() Info {
	return Info{Size: e.size, Found: true, External: e.flags&flagExternal != 0, Doubled: e.flags&flagDoubled != 0}
}

// Peek tells what is stored under key without renewing its lease.
func (l *Log) Peek(key Key) Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.index.find(&key); p != 0 && !l.closed {
		return l.index.at(p).info()
	}
	return Info{}
}

// wanted is a frame to read.
type wanted struct {
	segment *segment
	offset  int64
	size    int64
	at      int // in the caller's order
}

// Get reads the values of keys and renews their leases; frames that stand near each other are read
// at once, so values of one call may share memory. A value whose bytes are damaged is removed and
// given as not found, and the error wraps ErrCorrupt while all other values are good.
func (l *Log) Get(keys []Key) ([]Value, error) {
	values := make([]Value, len(keys))
	frames, err := l.claim(keys, values)
	if len(frames) > 0 {
		defer l.unclaim(frames)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(frames, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.segment.id, b.segment.id), cmp.Compare(a.offset, b.offset))
	})
	var damage error
	for len(frames) > 0 {
		n := runLength(frames)
		if err := l.readFrames(frames[:n], keys, values); err != nil {
			damage = err
		}
		frames = frames[n:]
	}
	return values, damage
}

// claim looks keys up and holds the segments of those that are inline. If there are any, the call uses files from here to
// unclaim.
func (l *Log) claim(keys []Key, values []Value) ([]wanted, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	var frames []wanted
	var now uint32 // 0: not read yet, as nothing was found
	for i := range keys {
		p := l.index.find(&keys[i])
		if p == 0 {
			continue
		}
		if now == 0 {
			now = l.now()
		}
		l.touch(p, now)
		e := l.index.at(p)
		values[i].Info = e.info()
		if values[i].External {
			continue
		}
		s := l.segments[e.segment]
		if err := l.openSegment(s); err != nil {
			return frames, err
		}
		s.users++
		if frames == nil {
			l.inflight++
			frames = make([]wanted, 0, len(keys)-i)
		}
		frames = append(frames, wanted{s, int64(e.offset), e.size, i})
	}
	return frames, nil
}

func (l *Log) unclaim(frames []wanted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range frames {
		l.doneUsing(f.segment)
	}
	l.inflight--
	l.changed.Broadcast()
}

// runLength is how many of the sorted frames one read takes.
func runLength(frames []wanted) int {
	first := frames[0]
	end := first.offset + frameSize(first.size)
	n := 1
	for ; n < len(frames); n++ {
		f := frames[n]
		next := f.offset + frameSize(f.size)
		if f.segment != first.segment || f.offset-end > readGap || next-first.offset > readRun {
			break
		}
		end = max(end, next)
	}
	return n
}

// readFrames reads frames of one segment with one read and hands out their values.
func (l *Log) readFrames(frames []wanted, keys []Key, values []Value) (damage error) {
	first, last := frames[0], frames[len(frames)-1]
	buf := make([]byte, last.offset+frameSize(last.size)-first.offset)
	n, readErr := first.segment.file.ReadAt(buf, first.offset)
	buf = buf[:n]
	for _, f := range frames {
		var key Key
		var value []byte
		err := readErr
		if start := f.offset - first.offset; start < int64(n) {
			key, value, err = decodeFrame(buf[start:])
		}
		if err == nil && (key != keys[f.at] || int64(len(value)) != f.size) {
			err = fmt.Errorf("frame of another value: %w", ErrCorrupt)
		}
		if err != nil {
			damage = fmt.Errorf("read %s at %d: %w", f.segment.path, f.offset, err)
			values[f.at] = Value{}
			l.condemn(keys[f.at], f)
			continue
		}
		if value == nil {
			value = []byte{}
		}
		values[f.at].Data = value
	}
	return damage
}

// condemn removes a damaged value unless it was replaced or moved meanwhile.
func (l *Log) condemn(key Key, f wanted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.index.find(&key)
	if p == 0 {
		return
	}
	e := l.index.at(p)
	if e.flags&flagExternal != 0 || e.segment != f.segment.id || int64(e.offset) != f.offset {
		return
	}
	n := line{kind: kindRemove, key: key}
	if l.write(n.append(nil), true) == nil {
		l.corrupt++
		l.drop(p)
	}
}

// drop takes the entry at p out of index and accounts. mu is held.
func (l *Log) drop(p place) {
	e := l.index.at(p)
	delete(l.unsynced, e.key)
	l.release(e)
	l.index.remove(p)
	l.removals++
}
