package casfake

import (
	"bytes"
	"container/list"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Store is a blob store in memory.
type Store struct {
	options cas.Options

	mu       sync.Mutex // guards everything below
	blobs    map[digest.Digest]*blob
	order    *list.List // of *blob, most recently used first
	bytes    int64
	reserved int64
	removals uint64
	evicted  int64
	corrupt  int64
	failure  error
	closed   bool
}

// blob is content with its standing.
type blob struct {
	digest digest.Digest
	data   []byte
	pins   int
	used   time.Time
	place  *list.Element
}

// New makes an empty store. Of the options MaxBytes, MaxBlob, Lease and Clock count; MaxBytes 0
// means no limit.
func New(o cas.Options) *Store {
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 62
	}
	if o.MaxBlob == 0 {
		o.MaxBlob = o.MaxBytes
	}
	if o.Lease == 0 {
		o.Lease = cas.DefaultLease
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Store{options: o, blobs: map[digest.Digest]*blob{}, order: list.New()}
}

// Close ends the store; its content is gone.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// find gives a present blob and touches it. The lock is held.
func (s *Store) find(d digest.Digest) (*blob, bool) {
	if d.IsEmpty() {
		return &blob{digest: d, data: []byte{}}, true
	}
	b, ok := s.blobs[d]
	if ok {
		b.used = s.options.Clock()
		s.order.MoveToFront(b.place)
	}
	return b, ok
}

// Missing gives those of ds that are absent, in their order, and leases the others.
func (s *Store) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, cas.ErrClosed
	}
	var missing []digest.Digest
	for _, d := range ds {
		if _, ok := s.find(d); !ok {
			missing = append(missing, d)
		}
	}
	return missing, nil
}

// Contains reports whether d is present, without touching it.
func (s *Store) Contains(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blobs[d]
	return ok || d.IsEmpty()
}

// Put stores data after verifying that it is d's.
func (s *Store) Put(ctx context.Context, d digest.Digest, data []byte) error {
	if errs := s.PutBatch(ctx, []cas.Blob{{Digest: d, Data: data}}); errs != nil {
		return errs[0]
	}
	return nil
}

// PutBatch stores blobs independently of each other; nil means that all are present.
func (s *Store) PutBatch(ctx context.Context, blobs []cas.Blob) []error {
	errs := make([]error, len(blobs))
	failed := false
	for i, b := range blobs {
		if errs[i] = s.put(ctx, b); errs[i] != nil {
			failed = true
		}
	}
	if !failed {
		return nil
	}
	return errs
}

func (s *Store) put(ctx context.Context, b cas.Blob) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.Digest.Size() > s.options.MaxBlob {
		return fmt.Errorf("put blob %s: %w", b.Digest.Short(), cas.ErrTooLarge)
	}
	if err := b.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.insert(b.Digest, bytes.Clone(b.Data))
}

// insert makes verified data present. The lock is held.
func (s *Store) insert(d digest.Digest, data []byte) error {
	if s.closed {
		return cas.ErrClosed
	}
	if _, ok := s.find(d); ok {
		return nil
	}
	if err := s.room(d.Size()); err != nil {
		return fmt.Errorf("put blob %s: %w", d.Short(), err)
	}
	b := &blob{digest: d, data: data, used: s.options.Clock()}
	b.place = s.order.PushFront(b)
	s.blobs[d] = b
	s.bytes += d.Size()
	return nil
}

// room evicts until size more bytes fit. The lock is held.
func (s *Store) room(size int64) error {
	if s.failure != nil {
		return s.failure
	}
	now := s.options.Clock()
	for e := s.order.Back(); e != nil && s.bytes+s.reserved+size > s.options.MaxBytes; {
		b := e.Value.(*blob)
		e = e.Prev()
		if b.pins == 0 && now.Sub(b.used) >= s.options.Lease {
			s.remove(b)
			s.evicted++
		}
	}
	if s.bytes+s.reserved+size > s.options.MaxBytes {
		return cas.ErrFull
	}
	return nil
}

// remove forgets a blob. The lock is held.
func (s *Store) remove(b *blob) {
	delete(s.blobs, b.digest)
	s.order.Remove(b.place)
	s.bytes -= b.digest.Size()
	s.removals++
}

// Get gives a copy of d's content.
func (s *Store) Get(ctx context.Context, d digest.Digest) ([]byte, error) {
	all, err := s.GetBatch(ctx, []digest.Digest{d})
	if err != nil {
		return nil, err
	}
	if all[0] == nil {
		return nil, fmt.Errorf("get blob %s: %w", d.Short(), cas.ErrNotFound)
	}
	return all[0], nil
}

// GetBatch gives the content of each digest, nil for those not found.
func (s *Store) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, cas.ErrClosed
	}
	all := make([][]byte, len(ds))
	for i, d := range ds {
		if b, ok := s.find(d); ok {
			all[i] = append([]byte{}, b.data...)
		}
	}
	return all, nil
}

// NewReader opens d, which is pinned until the reader is closed.
func (s *Store) NewReader(_ context.Context, d digest.Digest) (*cas.Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, cas.ErrClosed
	}
	b, ok := s.find(d)
	if !ok {
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), cas.ErrNotFound)
	}
	b.pins++
	return cas.NewReader(&source{Reader: bytes.NewReader(b.data), store: s, blob: b}, d.Size()), nil
}

// source reads a pinned blob.
type source struct {
	*bytes.Reader
	store *Store
	blob  *blob
}

func (r *source) Close() error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.blob.pins--
	return nil
}

// NewWriter reserves room for d and takes its bytes.
func (s *Store) NewWriter(_ context.Context, d digest.Digest) (*cas.Writer, error) {
	if d.Size() > s.options.MaxBlob {
		return nil, fmt.Errorf("write blob %s: %w", d.Short(), cas.ErrTooLarge)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, cas.ErrClosed
	}
	if err := s.room(d.Size()); err != nil {
		return nil, fmt.Errorf("write blob %s: %w", d.Short(), err)
	}
	s.reserved += d.Size()
	return cas.NewWriter(d, &sink{store: s, digest: d}), nil
}

// sink collects a writer's bytes.
type sink struct {
	bytes.Buffer
	store  *Store
	digest digest.Digest
}

func (k *sink) Commit() error {
	k.store.mu.Lock()
	defer k.store.mu.Unlock()
	k.store.reserved -= k.digest.Size()
	return k.store.insert(k.digest, k.Bytes())
}

func (k *sink) Abort() {
	k.store.mu.Lock()
	defer k.store.mu.Unlock()
	k.store.reserved -= k.digest.Size()
}

// PutFile reads and stores a file; it stays where it is.
func (s *Store) PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("put file: %w", err)
	}
	d := fn.Of(data)
	return d, s.Put(ctx, d, data)
}

// Materialize creates path with d's content, mode 0444 or 0555.
func (s *Store) Materialize(ctx context.Context, d digest.Digest, path string, executable bool) error {
	data, err := s.Get(ctx, d)
	if err != nil {
		return fmt.Errorf("materialize: %w", err)
	}
	mode := os.FileMode(0o444)
	if executable {
		mode = 0o555
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("materialize blob %s: %w", d.Short(), err)
	}
	defer f.Close()
	if _, err := io.Copy(f, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("materialize blob %s: %w", d.Short(), err)
	}
	return f.Chmod(mode)
}
