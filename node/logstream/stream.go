package logstream

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	pieceSize = 64 << 10              // bytes sent at once
	pollFirst = 10 * time.Millisecond // how soon a followed file that did not grow is looked at again
	pollLast  = 500 * time.Millisecond
)

// stream is one log. Everything but mu's fields is fixed when it is made.
type stream struct {
	name      string
	writeName string // "" for a followed file
	file      *os.File
	path      string // of a file to remove in the end; "" for a followed one

	mu      sync.Mutex // guards all below
	size    int64      // committed
	final   bool
	changed chan struct{} // closed and replaced with every growth; closed for good when final
	users   int           // readers, and one for being known by name; at 0 the file is closed
	touched time.Time     // when it last grew or ended
}

func newStream(name, writeName string, file *os.File) *stream {
	return &stream{name: name, writeName: writeName, file: file, changed: make(chan struct{}), users: 1, touched: time.Now()}
}

// look gives the present size. A followed file is asked for it, unless it is final.
func (s *stream) look() (size int64, final bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writeName == "" && !s.final {
		s.measure()
	}
	return s.size, s.final, s.changed
}

// measure takes over the size of a followed file. A file that shrank keeps its committed size; its
// readers find its new end by reading. The caller holds s.mu.
func (s *stream) measure() {
	if info, err := s.file.Stat(); err == nil && info.Size() > s.size {
		s.size, s.touched = info.Size(), time.Now()
	}
}

// append commits data at offset and reports the committed size.
func (s *stream) append(offset int64, data []byte, finish bool) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final {
		return s.size, fmt.Errorf("write to %s: %w", s.name, ErrFinal)
	}
	if offset != s.size {
		return s.size, fmt.Errorf("write to %s at %d, committed are %d bytes: %w", s.name, offset, s.size, ErrOffset)
	}
	if _, err := s.file.WriteAt(data, offset); err != nil {
		return s.size, fmt.Errorf("write to %s: %w", s.name, err)
	}
	s.size += int64(len(data))
	s.touched = time.Now()
	if len(data) > 0 || finish {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	if finish {
		s.final = true
	}
	return s.size, nil
}

// end makes the stream final and reports false when it was already.
func (s *stream) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final {
		return false
	}
	if s.writeName == "" {
		s.measure()
	}
	s.final, s.touched = true, time.Now()
	close(s.changed)
	s.changed = make(chan struct{})
	return true
}

// hold keeps the file open for one more user; false when it is closed already.
func (s *stream) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		return false
	}
	s.users++
	return true
}

// release gives one hold back; the last one closes the file.
func (s *stream) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	s.file.Close() // nothing of a log has to outlive the process
	if s.path != "" {
		os.Remove(s.path)
	}
}

// send sends from offset, at most limit bytes unless that is 0, and waits for more until the stream is final.
func (s *stream) send(ctx context.Context, offset, limit int64, to func([]byte) error) error {
	poll := pollFirst
	piece := make([]byte, pieceSize)
	for left := limit; limit == 0 || left > 0; {
		size, final, changed := s.look()
		if offset > size && final {
			return fmt.Errorf("read %s from %d of %d bytes: %w", s.name, offset, size, ErrOffset)
		}
		n := 0
		if offset < size {
			part := piece[:min(size-offset, pieceSize)]
			if limit > 0 {
				part = part[:min(left, int64(len(part)))]
			}
			var err error
			if n, err = s.file.ReadAt(part, offset); n == 0 && final {
				return fmt.Errorf("read %s: %w", s.name, err) // shorter than it was
			}
		}
		if n > 0 {
			if err := to(piece[:n]); err != nil {
				return fmt.Errorf("send %s: %w", s.name, err)
			}
			offset, left, poll = offset+int64(n), left-int64(n), pollFirst
			continue
		}
		if final {
			return nil
		}
		if err := s.wait(ctx, changed, poll); err != nil {
			return err
		}
		poll = min(2*poll, pollLast)
	}
	return nil
}

// wait returns after a change, or, for a followed file, after a while.
func (s *stream) wait(ctx context.Context, changed <-chan struct{}, poll time.Duration) error {
	var later <-chan time.Time
	if s.writeName == "" {
		timer := time.NewTimer(poll)
		defer timer.Stop()
		later = timer.C
	}
	select {
	case <-changed:
	case <-later:
	case <-ctx.Done():
		return fmt.Errorf("read %s: %w", s.name, context.Cause(ctx))
	}
	return nil
}
