package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

// Put stores data after verifying that it is d's; present blobs are only leased anew.
// Errors: ErrCorrupt, ErrFull, ErrTooLarge, ErrClosed.
func (s *Store) Put(ctx context.Context, d digest.Digest, data []byte) error {
	if errs := s.PutBatch(ctx, []Blob{{Digest: d, Data: data}}); errs != nil {
		return errs[0]
	}
	return nil
}

// PutBatch stores blobs independently of each other and gives an error for each, or nil when all
// are present. All small ones together cost one append to a segment and one to the journal.
func (s *Store) PutBatch(ctx context.Context, blobs []Blob) []error {
	errs := make([]error, len(blobs))
	var small []int
	present, err := s.present(blobs)
	for i, b := range blobs {
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("put blob %s: %w", b.Digest.Short(), err)
		case ctx.Err() != nil:
			errs[i] = ctx.Err()
		case b.Digest.Size() > s.options.MaxBlob:
			errs[i] = fmt.Errorf("put blob %s: %w", b.Digest.Short(), ErrTooLarge)
		default:
			errs[i] = b.Check()
		}
		if errs[i] != nil || present[i] || b.Digest.IsEmpty() {
			continue
		}
		if b.Digest.Size() <= s.options.InlineLimit {
			small = append(small, i)
		} else {
			errs[i] = s.putLarge(b)
		}
	}
	s.putSmall(blobs, small, errs)
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	return errs
}

// present tells which blobs are there already and renews their leases.
func (s *Store) present(blobs []Blob) ([]bool, error) {
	keys := make([]record.Key, len(blobs))
	infos := make([]record.Info, len(blobs))
	for i, b := range blobs {
		keys[i] = KeyOf(b.Digest)
	}
	present := make([]bool, len(blobs))
	err := s.log.Lookup(keys, infos)
	for i, b := range blobs {
		present[i] = matches(infos[i], b.Digest)
	}
	return present, err
}

// putSmall appends verified blobs to a segment: all at once, and one by one where that fails, so
// that each gets its own answer.
func (s *Store) putSmall(blobs []Blob, which []int, errs []error) {
	if len(which) == 0 {
		return
	}
	items := make([]record.Item, len(which))
	for i, w := range which {
		items[i] = record.Item{Key: KeyOf(blobs[w].Digest), Value: blobs[w].Data}
	}
	err := s.log.Put(items)
	if err == nil {
		return
	}
	for i, w := range which {
		if len(which) > 1 {
			err = s.log.Put(items[i : i+1])
		}
		if err != nil {
			errs[w] = fmt.Errorf("put blob %s: %w", blobs[w].Digest.Short(), err)
		}
	}
}

// putLarge stores a verified blob as a file of its own.
func (s *Store) putLarge(b Blob) error {
	sink, err := s.newUpload(b.Digest)
	if err != nil {
		return fmt.Errorf("put blob %s: %w", b.Digest.Short(), err)
	}
	if _, err := sink.Write(b.Data); err != nil {
		sink.Abort()
		return fmt.Errorf("put blob %s: %w", b.Digest.Short(), err)
	}
	if err := sink.Commit(); err != nil {
		return fmt.Errorf("put blob %s: %w", b.Digest.Short(), err)
	}
	return nil
}

// NewWriter reserves room for d and takes its bytes in order. Errors: ErrFull, ErrTooLarge, ErrClosed.
func (s *Store) NewWriter(ctx context.Context, d digest.Digest) (*Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.Size() > s.options.MaxBlob {
		return nil, fmt.Errorf("write blob %s: %w", d.Short(), ErrTooLarge)
	}
	if d.Size() <= s.options.InlineLimit {
		if _, err := s.lookup(d); errors.Is(err, ErrClosed) {
			return nil, err
		}
		return NewWriter(d, &smallSink{store: s, digest: d}), nil
	}
	sink, err := s.newUpload(d)
	if err != nil {
		return nil, fmt.Errorf("write blob %s: %w", d.Short(), err)
	}
	return NewWriter(d, sink), nil
}

// smallSink collects a small blob in memory.
type smallSink struct {
	store  *Store
	digest digest.Digest
	data   []byte
}

func (k *smallSink) Write(p []byte) (int, error) {
	k.data = append(k.data, p...)
	return len(p), nil
}

// Commit stores what the Writer has verified.
func (k *smallSink) Commit() error {
	if _, err := k.store.lookup(k.digest); err == nil || k.digest.IsEmpty() {
		return nil
	}
	return k.store.log.Put([]record.Item{{Key: KeyOf(k.digest), Value: k.data}})
}

func (k *smallSink) Abort() { k.data = nil }

// upload is a large blob on its way: a file in uploads/ and a reservation.
type upload struct {
	store  *Store
	digest digest.Digest
	file   *os.File
	offset int64
}

func (s *Store) newUpload(d digest.Digest) (*upload, error) {
	if err := s.log.Reserve(d.Size()); err != nil {
		return nil, err
	}
	file, err := s.files.createFor(d.Size())
	if record.NoSpace(err) && s.log.Reclaim(d.Size()) {
		file, err = s.files.createFor(d.Size())
	}
	if err != nil {
		s.log.Unreserve(d.Size())
		return nil, full(err)
	}
	return &upload{store: s, digest: d, file: file}, nil
}

// Write appends p; when the disk is full it has the store evict, and tries once more.
func (u *upload) Write(p []byte) (int, error) {
	n, err := u.file.WriteAt(p, u.offset)
	if record.NoSpace(err) && u.store.log.Reclaim(u.digest.Size()-u.offset) {
		n, err = u.file.WriteAt(p, u.offset)
	}
	if err != nil {
		return 0, full(err)
	}
	u.offset += int64(n)
	return n, nil
}

// Commit brings the file to its place. The reservation ends either way.
func (u *upload) Commit() error {
	err := u.file.Chmod(fileMode)
	if closeErr := u.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		u.Abort()
		return full(err)
	}
	return u.store.adopt(u.digest, u.file.Name())
}

// Abort leaves nothing.
func (u *upload) Abort() {
	u.file.Close()
	os.Remove(u.file.Name()) // else the next Open does
	u.store.log.Unreserve(u.digest.Size())
}

// adopt makes an upload with verified content the blob d. The reservation of its size ends.
func (s *Store) adopt(d digest.Digest, name string) error {
	key := KeyOf(d)
	seal(name)
	err := s.log.Adopt(key, d.Size(), func() error { return s.files.install(name, s.files.path(key)) })
	if err != nil {
		os.Remove(name) // else the next Open does
	}
	return full(err)
}

// full gives a full disk the name callers know.
func full(err error) error {
	if record.NoSpace(err) && !errors.Is(err, ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
