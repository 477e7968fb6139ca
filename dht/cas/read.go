package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

// Get gives d's content. Errors: ErrNotFound, also when the content was damaged and has been
// removed just now; ErrClosed.
func (s *Store) Get(ctx context.Context, d digest.Digest) ([]byte, error) {
	all, err := s.GetBatch(ctx, []digest.Digest{d})
	if err != nil {
		return nil, fmt.Errorf("get blob %s: %w", d.Short(), err)
	}
	if all[0] == nil {
		return nil, fmt.Errorf("get blob %s: %w", d.Short(), ErrNotFound)
	}
	return all[0], nil
}

// GetBatch gives the content of each digest, nil for those not found. Small blobs that were stored
// together are read together and may share memory, which callers may change but not append to in
// place.
func (s *Store) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	keys := make([]record.Key, len(ds))
	for i, d := range ds {
		keys[i] = KeyOf(d)
	}
	values, err := s.log.Get(keys)
	if err != nil && !errors.Is(err, record.ErrCorrupt) { // damaged ones are gone: not found
		return nil, err
	}
	all := make([][]byte, len(ds))
	for i, d := range ds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch {
		case d.IsEmpty():
			all[i] = []byte{}
		case !matches(values[i].Info, d):
		case values[i].External:
			if all[i], err = s.readFile(d); err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
		default:
			all[i] = values[i].Data
		}
	}
	return all, nil
}

// readFile reads a large blob whole.
func (s *Store) readFile(d digest.Digest) ([]byte, error) {
	pin, missing := s.Pin([]digest.Digest{d})
	defer pin.Release()
	if len(missing) > 0 {
		return nil, ErrNotFound
	}
	file, err := s.openFile(d)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data := make([]byte, d.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), err)
	}
	return data, nil
}

// openFile opens the file of a large blob that the caller has pinned. One that is gone or was
// changed behind the store's back loses its entry, and is not found.
func (s *Store) openFile(d digest.Digest) (*os.File, error) {
	path := s.files.path(KeyOf(d))
	if err := s.unspoilt(d, path); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := s.log.Delete(KeyOf(d)); err != nil {
			return nil, err
		}
		return nil, ErrNotFound
	}
	return file, err
}

// NewReader opens d, which is pinned until the reader is closed. Errors: ErrNotFound, ErrClosed.
func (s *Store) NewReader(ctx context.Context, d digest.Digest) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.Size() <= maxInline {
		if info, err := s.lookup(d); d.IsEmpty() || (err == nil && !info.External) {
			data, err := s.Get(ctx, d)
			if err != nil {
				return nil, err
			}
			pin, _ := s.Pin([]digest.Digest{d})
			return NewReader(memory{bytes.NewReader(data), pin}, d.Size()), nil
		}
	}
	if _, err := s.lookup(d); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), err)
	}
	pin, missing := s.Pin([]digest.Digest{d})
	if len(missing) > 0 {
		pin.Release()
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), ErrNotFound)
	}
	file, err := s.openFile(d)
	if err != nil {
		pin.Release()
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), err)
	}
	return NewReader(pinnedFile{file, pin}, d.Size()), nil
}

// memory is a small blob's content.
type memory struct {
	*bytes.Reader
	pin *Pin
}

func (m memory) Close() error {
	m.pin.Release()
	return nil
}

// pinnedFile is a large blob's content.
type pinnedFile struct {
	*os.File
	pin *Pin
}

func (f pinnedFile) Close() error {
	defer f.pin.Release()
	return f.File.Close()
}
