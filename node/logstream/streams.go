package logstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	// ErrNotFound says that no stream of this name exists, or none any more.
	ErrNotFound = errors.New("log stream not found")
	// ErrName says that a name is malformed, or the public one where the write name is needed, or the reverse.
	ErrName = errors.New("not a name for this use of a log stream")
	// ErrOffset says that an offset is not the committed size (writing) or lies outside (reading).
	ErrOffset = errors.New("offset outside of the log stream")
	// ErrFinal says that a stream takes no more bytes.
	ErrFinal = errors.New("log stream is final")
	// ErrFull says that there is no room for another stream or more bytes.
	ErrFull = errors.New("no room for log streams")
)

const (
	ownParent   = "node"  // begins the names of followed files
	filePattern = "log-*" // names the files of created streams
)

// Options says where streams lie and how many there may be. Zero values stand for the defaults given.
type Options struct {
	Dir           string        // for the content of created streams; must be set, and theirs alone
	MaxStreams    int           // known at once; default 1,000
	MaxBytes      int64         // in one created stream; default 256 MiB
	RetainedBytes int64         // in all final streams; default 512 MiB
	Retention     time.Duration // of a final stream; default 1 min
	Idle          time.Duration // after it an unfinished stream that nobody writes may make room; default 10 min
}

func (o Options) withDefaults() Options {
	if o.MaxStreams <= 0 {
		o.MaxStreams = 1000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.RetainedBytes <= 0 {
		o.RetainedBytes = 512 << 20
	}
	if o.Retention <= 0 {
		o.Retention = time.Minute
	}
	if o.Idle <= 0 {
		o.Idle = 10 * time.Minute
	}
	return o
}

// Streams are all streams of a node. Make them with Open, end them with Close.
type Streams struct {
	options Options

	mu     sync.Mutex // guards all below; taken before a stream's mu, never after it
	byName map[string]*stream
	final  []*stream // in the order they became final; also in byName
	kept   int64     // bytes in final
	expiry *time.Timer
	closed bool
}

// Open makes an empty set and removes what an earlier process left in Options.Dir.
func Open(o Options) (*Streams, error) {
	o = o.withDefaults()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open log streams: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(o.Dir, filePattern))
	if err != nil {
		return nil, fmt.Errorf("open log streams: %w", err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("open log streams: %w", err)
		}
	}
	s := &Streams{options: o, byName: map[string]*stream{}}
	s.mu.Lock() // the timer's function may run before the field is set
	defer s.mu.Unlock()
	s.expiry = time.AfterFunc(o.Retention, s.expire)
	return s, nil
}

// Create makes a stream to be written and gives its public name and its secret write name. Errors wrap
// ErrName (the parent) and ErrFull.
func (s *Streams) Create(parent string) (name, writeName string, err error) {
	if err := checkParent(parent); err != nil {
		return "", "", fmt.Errorf("create log stream: %w", err)
	}
	file, err := os.CreateTemp(s.options.Dir, filePattern)
	if err != nil {
		return "", "", fmt.Errorf("create log stream: %w", err)
	}
	name = strings.TrimPrefix(parent+"/"+segment+"/"+newID(), "/")
	created := newStream(name, name+"/"+newID(), file)
	created.path = file.Name()
	if err := s.add(created); err != nil {
		created.release()
		return "", "", err
	}
	return name, created.writeName, nil
}

// Follow makes a file readable under the name it returns, while the file grows and, after finish, for the
// usual time. The name is "" when there is no such file or no room. finish is never nil; only its first
// call counts.
func (s *Streams) Follow(path string) (name string, finish func()) {
	file, err := os.Open(path)
	if err != nil {
		return "", func() {}
	}
	followed := newStream(ownParent+"/"+segment+"/"+newID(), "", file)
	if err := s.add(followed); err != nil {
		followed.release()
		return "", func() {}
	}
	return followed.name, func() {
		if followed.end() {
			s.retain(followed)
		}
	}
}

// Read sends the bytes from offset on, at most limit of them unless that is 0, and waits for more until
// the stream is final, limit is reached or ctx ends. Errors wrap ErrNotFound, ErrName, ErrOffset, and
// those of send and ctx.
func (s *Streams) Read(ctx context.Context, name string, offset, limit int64, send func([]byte) error) error {
	known, isWrite, err := s.find(name)
	switch {
	case err != nil:
		return err
	case isWrite:
		return fmt.Errorf("read by a write name: %w", ErrName) // which is secret, so it is not repeated
	case offset < 0:
		return fmt.Errorf("read %s from %d: %w", name, offset, ErrOffset)
	case limit < 0:
		return fmt.Errorf("read %s: limit %d is negative: %w", name, limit, ErrName)
	case !known.hold():
		return fmt.Errorf("read %s: %w", name, ErrNotFound)
	}
	defer known.release()
	return known.send(ctx, offset, limit, send)
}

// Write commits data at offset, which must be the committed size, and gives the new committed size. With
// finish the stream is final. Errors wrap ErrNotFound, ErrName, ErrOffset, ErrFinal, ErrFull.
func (s *Streams) Write(name string, offset int64, data []byte, finish bool) (committed int64, err error) {
	known, err := s.findWritable(name)
	if err != nil {
		return 0, err
	}
	if !known.hold() {
		return 0, fmt.Errorf("write: %w", ErrNotFound)
	}
	defer known.release()
	if offset > s.options.MaxBytes-int64(len(data)) {
		return 0, fmt.Errorf("write to %s: above %d bytes: %w", known.name, s.options.MaxBytes, ErrFull)
	}
	committed, err = known.append(offset, data, finish)
	if err == nil && finish {
		s.retain(known)
	}
	return committed, err
}

// Committed gives the committed size of a stream and whether it is final, by its write name. Errors wrap
// ErrNotFound and ErrName.
func (s *Streams) Committed(name string) (size int64, final bool, err error) {
	known, err := s.findWritable(name)
	if err != nil {
		return 0, false, err
	}
	size, final, _ = known.look()
	return size, final, nil
}

// find gives the stream of a public or write name, and which of the two it is.
func (s *Streams) find(name string) (known *stream, isWrite bool, err error) {
	if !IsName(name) {
		return nil, false, fmt.Errorf("%q: %w", name, ErrName)
	}
	publicName, isWrite := public(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	known = s.byName[publicName]
	if known == nil || isWrite && known.writeName != name {
		return nil, false, fmt.Errorf("%s: %w", publicName, ErrNotFound)
	}
	return known, isWrite, nil
}

func (s *Streams) findWritable(name string) (*stream, error) {
	known, isWrite, err := s.find(name)
	if err == nil && !isWrite {
		err = fmt.Errorf("write to %s by its public name: %w", name, ErrName)
	}
	return known, err
}

// add makes a stream known by its name. When there are too many, the oldest final one makes room, or one
// that nobody wrote for long.
func (s *Streams) add(n *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("log streams are closed: %w", ErrFull)
	}
	if len(s.byName) >= s.options.MaxStreams {
		if len(s.final) > 0 {
			s.forgetOldest()
		} else if !s.forgetIdle() {
			return fmt.Errorf("%d unfinished log streams: %w", len(s.byName), ErrFull)
		}
	}
	s.byName[n.name] = n
	return nil
}

// forgetIdle forgets one unfinished stream that has not grown for Options.Idle. The caller holds s.mu.
func (s *Streams) forgetIdle() bool {
	for name, known := range s.byName {
		known.mu.Lock()
		idle := known.writeName != "" && time.Since(known.touched) >= s.options.Idle
		known.mu.Unlock()
		if idle {
			known.end()
			delete(s.byName, name)
			known.release()
			return true
		}
	}
	return false
}

// retain puts a stream that became final among those kept for a while.
func (s *Streams) retain(n *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[n.name] != n {
		return // forgotten meanwhile
	}
	s.final = append(s.final, n)
	s.kept += n.size // fixed from now on
	s.trim()
}

// trim forgets final streams that are too large together or too old. The caller holds s.mu.
func (s *Streams) trim() {
	for len(s.final) > 0 {
		age := time.Since(s.final[0].touched)
		if s.kept <= s.options.RetainedBytes && age < s.options.Retention {
			s.expiry.Reset(s.options.Retention - age)
			return
		}
		s.forgetOldest()
	}
}

// forgetOldest forgets the final stream that ended first. The caller holds s.mu.
func (s *Streams) forgetOldest() {
	oldest := s.final[0]
	s.final = slices.Delete(s.final, 0, 1)
	s.kept -= oldest.size
	delete(s.byName, oldest.name)
	oldest.release()
}

// expire runs on the timer that trim sets for the oldest final stream.
func (s *Streams) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.trim()
	}
}

// Close ends all streams; readers get what is there. It does not wait for them.
func (s *Streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.expiry.Stop()
	for name, known := range s.byName {
		known.end()
		delete(s.byName, name)
		known.release()
	}
	s.final = nil
	return nil
}
