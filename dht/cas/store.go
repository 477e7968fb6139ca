package cas

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

// maxInline bounds Options.InlineLimit, so that a value is small beside a segment.
const maxInline = 1 << 20

// Store is an open blob store. Safe for concurrent use.
type Store struct {
	dir     string
	options Options
	files   *files
	log     *record.Log
	doubles [64]sync.Mutex // one executable copy of a blob is made at a time, by hash
}

// Open opens or makes the store in dir. Errors: ErrLocked while another process has it open.
func Open(dir string, o Options) (*Store, error) {
	f, err := openFiles(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := o.setDefaults(dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{dir: dir, options: o, files: f}
	s.log, err = record.Open(filepath.Join(dir, "records"), record.Options{
		MaxBytes: o.MaxBytes, MinFree: o.MinFree, Lease: o.Lease, Clock: o.Clock, Owner: f,
		SegmentBytes: segmentBytes(o), Files: o.files, Boot: o.boot,
		Space: func(string) (int64, error) {
			free, _, err := o.Disk.Space(dir)
			return free, err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// The lock is ours now: what unfinished uploads left can go.
	err = f.clearUploads()
	if err == nil && s.log.CutOff() {
		err = s.reconcile()
	}
	if err != nil {
		s.log.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (o *Options) setDefaults(dir string) error {
	if o.Disk == nil {
		o.Disk = systemDisk{}
	}
	free, total, err := o.Disk.Space(dir)
	if err != nil {
		return fmt.Errorf("measure disk: %w", err)
	}
	if o.MaxBytes <= 0 {
		used, err := usedBytes(dir)
		if err != nil {
			return err
		}
		o.MaxBytes = min(DefaultMaxBytes, free/2+used/2)
	}
	if o.MinFree == 0 {
		o.MinFree = min(DefaultMinFree, total/20)
	}
	if o.MaxBlob <= 0 {
		o.MaxBlob = o.MaxBytes
	}
	if o.InlineLimit <= 0 {
		o.InlineLimit = DefaultInlineLimit
	}
	o.InlineLimit = min(o.InlineLimit, maxInline)
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	return nil
}

// segmentBytes sizes segments so that a small store still has many, and the largest inline blob fits.
func segmentBytes(o Options) int64 {
	return max(2*o.InlineLimit, min(64<<20, max(64<<10, o.MaxBytes/16)))
}

// usedBytes is what the store in dir says it used when its limit was last chosen.
func usedBytes(dir string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(dir, "used"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var used int64
	if _, err := fmt.Sscan(string(data), &used); err != nil || used < 0 || used > math.MaxInt64/2 {
		return 0, nil // only a default depends on it
	}
	return used, nil
}

// Close waits for calls that are going on and gives the directory back. Readers may be used and
// closed after it.
func (s *Store) Close() error {
	st := s.log.Stat()
	used := fmt.Sprintln(st.Live + st.Dead)
	os.WriteFile(filepath.Join(s.dir, "used"), []byte(used), 0o600) // only a default depends on it
	return s.log.Close()
}

// KeyOf is a blob's key in a log of records: function and hash. The size is the value's.
func KeyOf(d digest.Digest) (key record.Key) {
	hash := d.Hash()
	key[0] = byte(d.Function())
	copy(key[1:], hash[:])
	return key
}

// DigestOf is the reverse of KeyOf.
func DigestOf(key record.Key, size int64) digest.Digest {
	return digest.New(digest.Function(key[0]), [digest.HashSize]byte(key[1:]), size)
}

// matches reports whether what the log has is d's content: a right hash with a wrong size is not.
func matches(info record.Info, d digest.Digest) bool { return info.Found && info.Size == d.Size() }

// Missing gives those of ds that are absent, in their order, and leases the others. The empty blob
// is never missing.
func (s *Store) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	const run = 1024
	var keys [run]record.Key
	var infos [run]record.Info
	var missing []digest.Digest
	for len(ds) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(run, len(ds))
		for i, d := range ds[:n] {
			keys[i] = KeyOf(d)
		}
		if err := s.log.Lookup(keys[:n], infos[:n]); err != nil {
			return nil, fmt.Errorf("find missing blobs: %w", err)
		}
		for i, d := range ds[:n] {
			if !matches(infos[i], d) && !d.IsEmpty() {
				missing = append(missing, d)
			}
		}
		ds = ds[n:]
	}
	return missing, nil
}

// Contains reports whether d is present, without renewing its lease.
func (s *Store) Contains(d digest.Digest) bool {
	return d.IsEmpty() || matches(s.log.Peek(KeyOf(d)), d)
}

// lookup tells about d and renews its lease. Errors: ErrNotFound, ErrClosed.
func (s *Store) lookup(d digest.Digest) (record.Info, error) {
	infos := make([]record.Info, 1)
	if err := s.log.Lookup([]record.Key{KeyOf(d)}, infos); err != nil {
		return record.Info{}, err
	}
	if !matches(infos[0], d) {
		return record.Info{}, ErrNotFound
	}
	return infos[0], nil
}

// Pin holds the present ones of ds until Release and gives those that are missing.
func (s *Store) Pin(ds []digest.Digest) (*Pin, []digest.Digest) {
	keys := make([]record.Key, len(ds))
	for i, d := range ds {
		keys[i] = KeyOf(d)
	}
	present := make([]bool, len(ds))
	s.log.Pin(keys, present)
	var missing []digest.Digest
	held := keys[:0]
	for i, d := range ds {
		if present[i] {
			held = append(held, keys[i])
		}
		if !d.IsEmpty() && !(present[i] && matches(s.log.Peek(keys[i]), d)) {
			missing = append(missing, d)
		}
	}
	return NewPin(func() { s.log.Unpin(held) }), missing
}

// Removals counts the blobs that left the store: as long as it does not grow, what was present
// still is.
func (s *Store) Removals() uint64 { return s.log.Removals() }

// Stat gives the store's state.
func (s *Store) Stat() Stat {
	st := s.log.Stat()
	free, _, _ := s.options.Disk.Space(s.dir) // 0 when it cannot be measured
	return Stat{
		Blobs: st.Entries, Bytes: st.Live, Dead: st.Dead, Reserved: st.Reserved, Pinned: st.Pinned,
		MaxBytes: s.options.MaxBytes, MinFree: s.options.MinFree, Free: free, Segments: st.Segments,
		Memory: st.Memory, Evicted: st.Evicted, Corrupt: st.Corrupt + s.files.corrupt.Load(), Removals: st.Removals,
	}
}
