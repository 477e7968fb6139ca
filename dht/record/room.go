package record

import (
	"errors"
	"syscall"
)

const (
	// maxVictims is how many entries one journal append removes.
	maxVictims = 256
	// freeTrust is how many bytes are written before the free space is measured again.
	freeTrust = 16 << 20
)

// freeDisk remembers the last measurement of free space.
type freeDisk struct {
	free  int64
	at    uint32 // tick of the measurement; 0 never
	spent int64  // bytes given out since
}

// NoSpace reports whether an error says that the disk is full, or what of it one may use.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// over is by how many bytes need more would pass a limit; 0 or less when it fits. mu is held.
func (l *Log) over(need int64) int64 {
	over := l.inlined + l.external + l.reserved + need - l.options.MaxBytes
	if l.options.MinFree <= 0 {
		return over
	}
	now := l.now()
	fresh := l.disk.at != 0 && now-l.disk.at < 10 && l.disk.spent < freeTrust
	if !fresh || l.disk.free-l.disk.spent-need < l.options.MinFree {
		free, err := l.options.Space(l.dir)
		if err != nil {
			return over // unknown: writes will tell when the disk is full
		}
		l.disk = freeDisk{free: free, at: now}
	}
	return max(over, l.options.MinFree+need-(l.disk.free-l.disk.spent))
}

// room makes sure that need more bytes fit under the limits, by compacting where half is waste and
// else evicting the least recently used. mu is held, and released while files change.
func (l *Log) room(need int64) error {
	if need > l.options.MaxBytes {
		return ErrFull
	}
	for {
		over := l.over(need)
		if over <= 0 {
			l.disk.spent += need
			return nil
		}
		if !l.shrink(over) {
			return ErrFull
		}
	}
}

// reclaim frees need bytes of disk after a write failed for want of them, and reports whether it
// freed any. mu is held, and released while files change.
func (l *Log) reclaim(need int64) bool {
	start := l.inlined + l.external
	for start-(l.inlined+l.external) < need {
		if !l.shrink(need - (start - l.inlined - l.external)) {
			break
		}
	}
	return l.inlined+l.external < start
}

// shrink takes one step that gives space back, now or after further steps, and reports whether
// there was one to take. mu is held, and released while files change.
func (l *Log) shrink(want int64) bool {
	if s := l.mostWasteful(); s != nil && wasteful(s) && l.compactNow(s.id) {
		return true
	}
	if victims := l.victims(want); len(victims) > 0 {
		if l.removeAll(victims) != nil {
			return false
		}
		l.evicted += int64(len(victims))
		return true
	}
	s := l.mostWasteful()
	return s != nil && s.dead() >= s.end/16 && s.dead() > 0 && l.compactNow(s.id)
}

// victims picks the least recently used entries that may go, at least want bytes if there are.
// The list is in order of use, so the first leased entry ends the search. mu is held.
func (l *Log) victims(want int64) []place {
	if l.options.Keeps {
		return nil
	}
	var places []place
	now, safe := l.now(), l.leaseTicks()+l.touchTicks()
	for p := l.index.oldest(); p != 0 && len(places) < maxVictims && want > 0; p = l.index.newer(p) {
		e := l.index.at(p)
		if now-e.used < safe {
			break
		}
		if e.flags&flagExternal == 0 {
			want -= frameSize(e.size)
		} else if l.busy[e.key] == 0 {
			want -= e.charge()
		} else {
			continue
		}
		places = append(places, p)
	}
	return places
}

// wasteful reports whether half of a segment is waste, the point where copying pays.
func wasteful(s *segment) bool { return s.dead()*2 >= s.end && s.end > 0 }

// mostWasteful gives the segment with the most dead bytes that nobody writes to, a wasteful one if
// there is any. mu is held.
func (l *Log) mostWasteful() *segment {
	var worst *segment
	for _, s := range l.segments {
		switch {
		case s.writers > 0:
		case worst == nil, wasteful(s) && !wasteful(worst):
			worst = s
		case wasteful(s) == wasteful(worst) && s.dead() > worst.dead():
			worst = s
		}
	}
	return worst
}

// compactNow compacts a segment at once and reports whether space came back. mu is held, and
// released meanwhile.
func (l *Log) compactNow(id uint32) bool {
	before := l.inlined
	l.mu.Unlock()
	l.upkeep.Lock()
	err := l.compact(id)
	l.upkeep.Unlock()
	l.mu.Lock()
	l.disk.at = 0
	return err == nil && (l.inlined < before || l.segments[id] == nil)
}
