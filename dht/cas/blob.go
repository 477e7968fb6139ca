package cas

import (
	"errors"
	"fmt"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

var (
	// ErrNotFound means that the store does not hold the blob.
	ErrNotFound = errors.New("blob not found")
	// ErrCorrupt means that bytes do not match the digest they came under.
	ErrCorrupt = errors.New("content does not match its digest")
	// ErrFull means that there is no room and nothing may be evicted: everything is leased or
	// pinned, or the disk is full for other reasons. Reading goes on.
	ErrFull = record.ErrFull
	// ErrTooLarge means that one blob is larger than the store takes.
	ErrTooLarge = errors.New("blob is too large")
	// ErrClosed means that the store, reader or writer was closed.
	ErrClosed = record.ErrClosed
	// ErrLocked means that another process has the store's directory open; the message names its pid.
	ErrLocked = record.ErrLocked
)

// Blob is content with the digest it claims.
type Blob struct {
	Digest digest.Digest
	Data   []byte
}

// Check hashes the data and reports ErrCorrupt when it is not what the digest says.
func (b Blob) Check() error {
	if int64(len(b.Data)) != b.Digest.Size() {
		return fmt.Errorf("blob %s has %d bytes: %w", b.Digest.Short(), len(b.Data), ErrCorrupt)
	}
	if got := b.Digest.Function().Of(b.Data); got != b.Digest {
		return fmt.Errorf("blob %s hashes to %s: %w", b.Digest.Short(), got.Short(), ErrCorrupt)
	}
	return nil
}

// Stat is a store's state at one moment. Sizes are in bytes.
type Stat struct {
	Blobs    int64 // blobs present, the empty one not counted
	Bytes    int64 // disk space they occupy, framing and executable copies included
	Dead     int64 // space of removed small blobs that waits for compaction
	Reserved int64 // promised to writers that have not committed
	Pinned   int64 // blobs held by pins and open readers
	MaxBytes int64 // limit of Bytes + Dead + Reserved
	MinFree  int64 // free disk space the store leaves
	Free     int64 // free disk space now
	Segments int64 // segment files
	Memory   int64 // bytes of the index in memory
	Evicted  int64 // blobs evicted since Open
	Corrupt  int64 // blobs quarantined since Open
	Removals uint64
}

// VerifyOptions shape a verification pass.
type VerifyOptions struct {
	// BytesPerSecond bounds the read rate; 0 means as fast as the disk gives.
	BytesPerSecond int64
	// Progress is told now and then, from the caller's goroutine, what was verified so far. May be nil.
	Progress func(blobs, bytes int64)
}

// Report tells what a verification pass found.
type Report struct {
	Blobs, Bytes int64           // verified, sizes as content
	Corrupt      []digest.Digest // quarantined: moved aside and no longer present
}

// Pin holds blobs present until Release.
type Pin struct {
	once    sync.Once
	release func()
}

// NewPin makes a Pin that calls release once. It is for implementers of the store's methods.
func NewPin(release func()) *Pin { return &Pin{release: release} }

// Release lets the blobs go; calls after the first do nothing.
func (p *Pin) Release() { p.once.Do(p.release) }
