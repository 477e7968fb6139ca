package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// What is kept in memory until it is stored together.
const (
	smallFile  = 64 << 10
	batchBytes = 4 << 20
	batchCount = 512
)

// errStore marks errors that are the blob store's or the disk's, not the image's.
var errStore = errors.New("store image")

// files puts contents into the store while an archive is read, and keeps them there until release.
type files struct {
	blobs Blobs
	dir   string // for larger ones on their way

	digests  []digest.Digest
	data     [][]byte
	bytes    int
	releases []func()
}

// add takes in one file of so many bytes.
func (f *files) add(ctx context.Context, size int64, content io.Reader) (digest.Digest, error) {
	if size > smallFile {
		return f.large(ctx, content)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(content, data); err != nil {
		return digest.Digest{}, err
	}
	d := digest.SHA256.Of(data)
	f.digests, f.data, f.bytes = append(f.digests, d), append(f.data, data), f.bytes+len(data)
	if f.bytes >= batchBytes || len(f.digests) >= batchCount {
		return d, f.flush(ctx)
	}
	return d, nil
}

// flush stores what waits in memory.
func (f *files) flush(ctx context.Context) error {
	if len(f.digests) == 0 {
		return nil
	}
	if err := f.blobs.PutAll(ctx, f.digests, f.data); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	err := f.pin(f.digests)
	f.digests, f.data, f.bytes = f.digests[:0], f.data[:0], 0
	return err
}

// large stores a file by way of the disk.
func (f *files) large(ctx context.Context, content io.Reader) (digest.Digest, error) {
	file, err := os.CreateTemp(f.dir, "file-")
	if err != nil {
		return digest.Digest{}, fmt.Errorf("%w: %w", errStore, err)
	}
	defer os.Remove(file.Name())
	_, err = io.Copy(&disk{file}, content)
	if closeErr := file.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("%w: %w", errStore, closeErr)
	}
	if err != nil {
		return digest.Digest{}, err
	}
	d, err := f.blobs.PutFile(ctx, digest.SHA256, file.Name())
	if err != nil {
		return digest.Digest{}, fmt.Errorf("%w: %w", errStore, err)
	}
	return d, f.pin([]digest.Digest{d})
}

// disk marks the errors of writing.
type disk struct{ file *os.File }

func (d *disk) Write(p []byte) (int, error) {
	n, err := d.file.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errStore, err)
	}
	return n, err
}

// pin keeps blobs that were just stored. One that is gone already makes the image too large for the store.
func (f *files) pin(ds []digest.Digest) error {
	release, missing := f.blobs.Pin(ds)
	f.releases = append(f.releases, release)
	if len(missing) > 0 {
		return fmt.Errorf("%w: the blob store has no room for it", ErrTooLarge)
	}
	return nil
}

// release lets everything go.
func (f *files) release() {
	for _, release := range f.releases {
		release()
	}
	f.releases = nil
}
