package cas

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

const (
	fileMode       = 0o444
	executableMode = 0o555
	// copySuffix marks the executable copy of a blob's file.
	copySuffix = "x"
	// maxQuarantine is how many damaged files are kept for inspection.
	maxQuarantine = 32
	// roomAtOnce is from how many bytes an upload takes its room on disk when it begins: below it that costs more than it gains.
	roomAtOnce = 1 << 20
	// manyFiles is how many unsynced files make one sync of the file system cheaper than one each.
	manyFiles = 32
)

// files are the blobs that are files of their own: blobs/<first byte>/<function>-<hash>, beside
// them the executable copies, uploads in uploads/, damaged ones in quarantine/. It is the log's
// Owner.
type files struct {
	dir     string
	corrupt atomic.Int64
}

func openFiles(dir string) (*files, error) {
	f := &files{dir: dir}
	for _, sub := range []string{f.uploads(), f.quarantine(), filepath.Join(dir, "blobs")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *files) uploads() string    { return filepath.Join(f.dir, "uploads") }
func (f *files) quarantine() string { return filepath.Join(f.dir, "quarantine") }

// path is where the file of key stands.
func (f *files) path(key record.Key) string {
	name := digest.Function(key[0]).String() + "-" + hex.EncodeToString(key[1:])
	return filepath.Join(f.dir, "blobs", hex.EncodeToString(key[1:2]), name)
}

// clearUploads removes what unfinished uploads left.
func (f *files) clearUploads() error {
	entries, err := os.ReadDir(f.uploads())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(f.uploads(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// create makes an empty upload.
func (f *files) create() (*os.File, error) { return os.CreateTemp(f.uploads(), "upload-") }

// createFor makes an empty upload for size bytes. That the disk has no room for a large one is found before any of it comes, and
// no write has to look for room.
func (f *files) createFor(size int64) (*os.File, error) {
	file, err := f.create()
	if err != nil || size < roomAtOnce {
		return file, err
	}
	if err := preallocate(file, size); record.NoSpace(err) { // what else fails, a write tells
		file.Close()
		os.Remove(file.Name()) // else the next Open does
		return nil, err
	}
	return file, nil
}

// install moves an upload to its place.
func (f *files) install(upload, path string) error {
	err := os.Rename(upload, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		err = os.Rename(upload, path)
	}
	return err
}

// Remove implements record.Owner.
func (f *files) Remove(key record.Key) error {
	path := f.path(key)
	for _, p := range []string{path + copySuffix, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Check implements record.Owner.
func (f *files) Check(key record.Key, size int64) bool {
	return f.verify(f.path(key), DigestOf(key, size), io.Discard) == nil
}

// verify hashes the file at path, copying what it reads to pace. Errors: ErrCorrupt, the file's.
func (f *files) verify(path string, want digest.Digest, pace io.Writer) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	hasher := want.Function().NewHasher()
	if _, err := io.Copy(io.MultiWriter(hasher, pace), io.LimitReader(file, want.Size()+1)); err != nil {
		return err
	}
	if got := hasher.Digest(); got != want {
		return fmt.Errorf("file hashes to %s: %w", got.Short(), ErrCorrupt)
	}
	return nil
}

// Sync implements record.Owner.
func (f *files) Sync(keys []record.Key) error {
	if len(keys) >= manyFiles && syncFileSystem(f.dir) == nil {
		return nil
	}
	for _, key := range keys {
		if err := syncFile(f.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

// setAside keeps a damaged file for inspection; its entry must be deleted after. Of many damaged
// files the earliest are kept.
func (f *files) setAside(key record.Key) {
	f.corrupt.Add(1)
	kept, err := os.ReadDir(f.quarantine())
	if err != nil || len(kept) >= maxQuarantine {
		return
	}
	path := f.path(key)
	os.Rename(path, filepath.Join(f.quarantine(), filepath.Base(path))) // else Remove takes it
}
