package cas

import (
	"time"

	"github.com/buildmesh/buildmesh/dht/record"
)

// Defaults of Options' zero values.
const (
	DefaultMaxBytes    = 50 << 30 // and at most half of what is free or the store's own
	DefaultMinFree     = 2 << 30  // and at most a twentieth of the disk
	DefaultLease       = 10 * time.Minute
	DefaultInlineLimit = 32 << 10
)

// Options shape a store; every zero value means the default.
type Options struct {
	// MaxBytes limits the disk space of the content, in bytes. Default: DefaultMaxBytes, but not
	// more than half of the disk space that is free or already the store's.
	MaxBytes int64
	// MinFree is the free disk space in bytes that the store leaves to others; below it the store
	// evicts. Default: DefaultMinFree, but not more than a twentieth of the disk. Negative: none.
	MinFree int64
	// MaxBlob is the largest blob in bytes. Default: MaxBytes.
	MaxBlob int64
	// InlineLimit is the largest blob in bytes that shares a segment file with others; larger ones
	// are files of their own. Default: DefaultInlineLimit; at most 1 MiB.
	InlineLimit int64
	// Lease is how long a blob that was written, read or asked for is safe from eviction.
	// Default: DefaultLease. Negative: no lease.
	Lease time.Duration
	// Clock tells the time for leases. Default: time.Now, whose monotonic reading makes jumps of
	// the wall clock harmless.
	Clock func() time.Time
	// Disk tells about free space. Default: the file system the store is on.
	Disk Disk

	files record.Files    // of the record log; tests make it fail
	boot  func() [16]byte // identifies the running system; tests pretend a restart
}

// Disk measures the file system a directory is on.
type Disk interface {
	// Space gives the free and the total bytes an ordinary user sees.
	Space(dir string) (free, total int64, err error)
}
