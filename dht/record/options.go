package record

import (
	"errors"
	"io"
	"os"
	"time"
)

var (
	// ErrFull means that there is no room and nothing may be evicted.
	ErrFull = errors.New("store is full")
	// ErrTooLarge means that one value is larger than a segment takes.
	ErrTooLarge = errors.New("value is too large")
	// ErrCorrupt means that stored bytes are not what was written.
	ErrCorrupt = errors.New("stored bytes are damaged")
	// ErrClosed means that the log was closed.
	ErrClosed = errors.New("closed")
	// ErrLocked means that another process has the directory open; the message names its pid.
	ErrLocked = errors.New("directory is locked by another process")
)

// KeySize is the length of a Key in bytes: a hash and one byte for its kind.
const KeySize = 33

// Key names a value. Keys must be spread evenly or come from a hash; their spread is not relied on
// for speed, since the index mixes them with a secret of the process.
type Key [KeySize]byte

// Item is a value under its key.
type Item struct {
	Key   Key
	Value []byte
}

// Info tells what is stored under a key.
type Info struct {
	Size     int64 // of the value, in bytes
	Found    bool
	External bool // the value is a file of the owner's
	Doubled  bool // the owner keeps a second copy of the file
}

// Value is what Get found under a key.
type Value struct {
	Info
	Data []byte // nil when not found or external
}

// Options shape a log. Zero values mean the defaults told at each field.
type Options struct {
	// MaxBytes limits the disk space of all values and their framing. Default: no limit.
	MaxBytes int64
	// MinFree is the free disk space in bytes below which the log evicts. Default: 0.
	MinFree int64
	// SegmentBytes is the size at which a segment is full. Default: 64 MiB, but at most a
	// sixteenth of MaxBytes and at least 64 KiB.
	SegmentBytes int64
	// Keeps: nothing is evicted, and what finds no room is refused. Default: the least recently used go.
	Keeps bool
	// Lease is how long an entry that was put or looked up is safe from eviction. Default: none.
	Lease time.Duration
	// SyncEvery is the longest time written data waits for fsync. Default: 5 s. Negative: it waits
	// for Sync or Close.
	SyncEvery time.Duration
	// Clock tells the time for leases. Default: time.Now. Steps back make no time pass.
	Clock func() time.Time
	// Space gives the free bytes of the file system of dir. Default: the operating system's answer.
	Space func(dir string) (free int64, err error)
	// Owner keeps external values. Default: none, and Adopt is not to be called.
	Owner Owner
	// Files opens the log's own files. Default: the operating system.
	Files Files
	// Boot identifies the running system. Default: the kernel's boot id; files written under
	// another one and not synced are verified when opened.
	Boot func() [16]byte
}

// Owner keeps values that are files of their own. Its methods are called without locks held and
// may be called concurrently for different keys, never for one key.
type Owner interface {
	// Remove removes the files of key; files that do not exist are no error.
	Remove(key Key) error
	// Check reports whether the file of key is whole, after power was lost.
	Check(key Key, size int64) bool
	// Sync makes the files of keys durable.
	Sync(keys []Key) error
}

// Files opens, renames and removes the log's own files: the place where tests make a disk fail.
type Files interface {
	OpenFile(path string, flag int, perm os.FileMode) (File, error)
	Rename(from, to string) error
	Remove(path string) error
}

// File is an open file of the log.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// osFiles are the operating system's files.
type osFiles struct{}

func (osFiles) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	return os.OpenFile(path, flag, perm)
}
func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (osFiles) Remove(path string) error     { return os.Remove(path) }

const (
	defaultSegment = 64 << 20
	minSegment     = 64 << 10
	defaultSync    = 5 * time.Second
)

func (o *Options) setDefaults() {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 62
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = max(minSegment, min(defaultSegment, o.MaxBytes/16))
	}
	if o.SyncEvery == 0 {
		o.SyncEvery = defaultSync
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Space == nil {
		o.Space = freeSpace
	}
	if o.Files == nil {
		o.Files = osFiles{}
	}
	if o.Boot == nil {
		o.Boot = bootID
	}
}
