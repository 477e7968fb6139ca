package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Open opens or makes the log in dir, which no other process may have open (ErrLocked). It reads
// the journal only; segments are not read unless power was lost, and then only what was not synced.
func Open(dir string, o Options) (*Log, error) {
	o.setDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open record log: %w", err)
	}
	lock, err := lockDirectory(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open record log: %w", err)
	}
	l := &Log{
		dir: dir, options: o, lock: lock,
		segments: map[uint32]*segment{}, pins: map[Key]int{}, busy: map[Key]int{},
		unsynced: map[Key]struct{}{}, stray: map[Key]struct{}{}, wake: make(chan struct{}, 1),
	}
	l.changed.L = &l.mu
	l.seen = o.Clock()
	l.elapsed = o.Lease*2 + tick // what was put by an earlier process is not leased
	if err := l.load(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("open record log %s: %w", dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.kept.Go(func() { l.keep(ctx) })
	return l, nil
}

// load brings the log to the state the files tell.
func (l *Log) load() error {
	r, err := l.replay()
	if err != nil {
		return err
	}
	sizes, err := l.findSegments()
	if err != nil {
		return err
	}
	if l.lines == 0 { // gone, or made by a process that ended at once
		l.lost += int64(len(sizes))
		if l.journal != nil {
			l.journal.file.Close()
		}
		l.journal, err = createJournal(l.options.Files, l.journalPath())
		if err != nil {
			return err
		}
		l.lines = 1
	}
	boot := l.options.Boot()
	opened := line{kind: kindOpened}
	copy(opened.key[:], boot[:])
	if err := l.write(opened.append(nil), true); err != nil {
		return err
	}
	l.attach(sizes)
	l.cutOff = !r.clean && (boot == [16]byte{} || boot != r.boot)
	if l.cutOff {
		l.recheck(r)
	}
	l.removeStray(r)
	return nil
}

// findSegments lists segment files with their sizes and removes an unfinished journal.
func (l *Log) findSegments() (map[uint32]int64, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	sizes := map[uint32]int64{}
	for _, e := range entries {
		id, ok := segmentID(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("list segments: %w", err)
		}
		sizes[id] = info.Size()
	}
	l.options.Files.Remove(l.journalPath() + ".new") // absent unless a rewrite was cut off
	return sizes, nil
}

// attach counts what lives in each segment, drops entries whose bytes are not there, and removes
// segments nobody points to.
func (l *Log) attach(sizes map[uint32]int64) {
	for p := place(1); p < l.index.high; p++ {
		e := l.index.at(p)
		if e.flags&flagUsed == 0 {
			continue
		}
		if e.flags&flagExternal != 0 {
			l.external += e.charge()
			continue
		}
		if int64(e.offset)+frameSize(e.size) > sizes[e.segment] {
			l.index.remove(p)
			l.lost++
			continue
		}
		s := l.segments[e.segment]
		if s == nil {
			s = &segment{id: e.segment, path: segmentPath(l.dir, e.segment), end: sizes[e.segment]}
			l.segments[e.segment] = s
		}
		s.live += frameSize(e.size)
	}
	for id, size := range sizes {
		l.nextID = max(l.nextID, id+1)
		if l.segments[id] == nil {
			l.options.Files.Remove(segmentPath(l.dir, id)) // at worst tried again by the next open
			continue
		}
		l.inlined += size
	}
	if last := l.segments[l.nextID-1]; last != nil && last.end < l.options.SegmentBytes && last.end%frameAlign == 0 {
		l.active = last
	}
}

// charge is the disk space of an external value.
func (e *entry) charge() int64 {
	if e.flags&flagDoubled != 0 {
		return 2 * e.size
	}
	return e.size
}

// replayed is what the journal tells beside the entries.
type replayed struct {
	clean   bool             // ends with kindClosed
	boot    [16]byte         // of the last process
	pending map[Key]struct{} // files that may exist without an entry
	suspect []suspect        // puts not known to be durable, by position
}

type suspect struct {
	position int64
	key      Key
}

// replay reads the journal into the index. A cut-off last line is forgotten, a damaged one skipped.
func (l *Log) replay() (*replayed, error) {
	r := &replayed{pending: map[Key]struct{}{}}
	l.index = newIndex(0)
	f, err := l.options.Files.OpenFile(l.journalPath(), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		r.clean = true
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	l.journal = &journal{file: f}
	if st, err := os.Stat(l.journalPath()); err == nil {
		l.index = newIndex(int(st.Size() / lineSize / 2))
	}
	in := bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), 1<<20)
	buf := make([]byte, lineSize)
	for position := int64(0); ; position += lineSize {
		if _, err := io.ReadFull(in, buf); err != nil {
			if err != io.EOF && err != io.ErrUnexpectedEOF {
				return nil, fmt.Errorf("read journal: %w", err)
			}
			break
		}
		var n line
		if n.decode(buf) {
			l.apply(&n, position, r)
		} else {
			l.lost++
		}
		if position == 0 && (n.kind != kindHeader || n.key != journalMagic) {
			return nil, fmt.Errorf("journal does not start as one: %w", ErrCorrupt)
		}
		l.lines++
		l.journal.end = position + lineSize
	}
	return r, nil
}

// apply makes a line's change. It follows the journal alone: files are looked at later.
func (l *Log) apply(n *line, position int64, r *replayed) {
	r.clean = n.kind == kindClosed
	switch n.kind {
	case kindKept, kindPut, kindMoved, kindAdopt:
		delete(r.pending, n.key)
		p := l.index.find(&n.key)
		switch {
		case p == 0:
			p = l.index.add(&n.key)
			l.index.pushFront(p)
		case n.kind != kindMoved:
			l.index.unlink(p)
			l.index.pushFront(p)
		}
		e := l.index.at(p)
		e.flags, e.segment, e.offset, e.size = n.flags|flagUsed, n.segment, n.offset, n.size
		if n.kind != kindKept {
			r.suspect = append(r.suspect, suspect{position, n.key})
		}
	case kindRemove:
		if p := l.index.find(&n.key); p != 0 {
			l.index.remove(p)
		}
		if n.flags&flagExternal != 0 {
			r.pending[n.key] = struct{}{}
		}
	case kindIntent:
		r.pending[n.key] = struct{}{}
	case kindGone:
		delete(r.pending, n.key)
	case kindSynced:
		i := 0
		for i < len(r.suspect) && r.suspect[i].position < n.size {
			i++
		}
		r.suspect = r.suspect[i:]
	case kindOpened:
		r.boot = [16]byte(n.key[:16])
	case kindClosed:
		r.suspect = nil
	}
}

// recheck reads every value that was not durable when power was lost and drops the damaged ones.
func (l *Log) recheck(r *replayed) {
	for _, s := range r.suspect {
		p := l.index.find(&s.key)
		if p == 0 {
			continue
		}
		e := l.index.at(p)
		if e.flags&flagExternal != 0 {
			if l.options.Owner == nil || !l.options.Owner.Check(s.key, e.size) {
				l.external -= e.charge()
				l.index.remove(p)
				r.pending[s.key] = struct{}{}
			}
			continue
		}
		if !l.frameWhole(e) {
			l.segments[e.segment].live -= frameSize(e.size)
			l.index.remove(p)
			l.lost++
		}
	}
}

// frameWhole reads an entry's frame and checks it. Only during Open.
func (l *Log) frameWhole(e *entry) bool {
	s := l.segments[e.segment]
	if err := l.openSegment(s); err != nil {
		return false
	}
	buf := make([]byte, frameSize(e.size))
	if _, err := s.file.ReadAt(buf, int64(e.offset)); err != nil {
		return false
	}
	key, value, err := decodeFrame(buf)
	return err == nil && key == e.key && int64(len(value)) == e.size
}

// removeStray removes files that were coming or going when the last process ended.
func (l *Log) removeStray(r *replayed) {
	for key := range r.pending {
		if l.options.Owner == nil || l.index.find(&key) != 0 {
			continue
		}
		if l.options.Owner.Remove(key) == nil {
			l.gone = append(l.gone, key)
		}
	}
}

// openSegment opens the file of s if it is not open. mu is held, or Open is running.
func (l *Log) openSegment(s *segment) error {
	if s.file != nil {
		return nil
	}
	f, err := l.options.Files.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	s.file = f
	return nil
}
