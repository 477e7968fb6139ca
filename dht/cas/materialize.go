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

// Materialize creates path, which must not exist, with d's content and mode 0444, or 0555 when
// executable. A small blob is copied; a large one is a hard link to the store's own file, or to its
// executable copy, which is made once and goes with the blob. The caller promises that nobody
// writes to path: whoever owns the file could change the mode and write into the store. Changing
// the owner is harmless. Where no link can be made (too many, another file system) it is a copy.
// Errors: ErrNotFound, ErrFull for the executable copy, those of creating path.
func (s *Store) Materialize(ctx context.Context, d digest.Digest, path string, executable bool) error {
	if err := s.materialize(ctx, d, path, executable); err != nil {
		return fmt.Errorf("materialize blob %s: %w", d.Short(), err)
	}
	return nil
}

func (s *Store) materialize(ctx context.Context, d digest.Digest, path string, executable bool) error {
	mode := os.FileMode(fileMode)
	if executable {
		mode = executableMode
	}
	info, err := s.lookup(d)
	switch {
	case d.IsEmpty():
		return writeNew(path, bytes.NewReader(nil), mode)
	case err != nil:
		return err
	case !info.External:
		data, err := s.Get(ctx, d)
		if err != nil {
			return err
		}
		return writeNew(path, bytes.NewReader(data), mode)
	}
	pin, missing := s.Pin([]digest.Digest{d})
	defer pin.Release()
	if len(missing) > 0 {
		return ErrNotFound
	}
	source := s.files.path(KeyOf(d))
	if executable {
		if source, err = s.executable(d, info.Doubled); err != nil {
			return err
		}
	}
	if err := s.unspoilt(d, source); err != nil {
		return err
	}
	err = os.Link(source, path)
	if err == nil || errors.Is(err, os.ErrExist) {
		return err
	}
	// Too many links, another file system, no links at all, or the file is gone: copying tells which.
	file, err := s.openFile(d)
	if err != nil {
		return err
	}
	defer file.Close()
	return writeNew(path, file, mode)
}

// executable gives the path of d's executable copy and makes it if there is none. d is pinned.
func (s *Store) executable(d digest.Digest, doubled bool) (string, error) {
	key := KeyOf(d)
	path := s.files.path(key) + copySuffix
	if doubled {
		return path, nil
	}
	lock := &s.doubles[key[1]%64]
	lock.Lock()
	defer lock.Unlock()
	if s.log.Peek(key).Doubled {
		return path, nil
	}
	if err := s.unspoilt(d, s.files.path(key)); err != nil {
		return "", err
	}
	if err := s.log.Reserve(d.Size()); err != nil {
		return "", err
	}
	ok, err := s.log.Double(key, d.Size(), func() error { return s.copyExecutable(d, path) })
	if err == nil && !ok {
		err = ErrNotFound
	}
	return path, full(err)
}

// copyExecutable makes the executable copy of d at path. The log calls it and waits: it must not change the log.
func (s *Store) copyExecutable(d digest.Digest, path string) error {
	from, err := os.Open(s.files.path(KeyOf(d)))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := s.files.create()
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Chmod(executableMode)
	}
	if closeErr := to.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		seal(to.Name())
		err = s.files.install(to.Name(), path)
	}
	if err != nil {
		os.Remove(to.Name()) // else the next Open does
	}
	return err
}

// writeNew creates a file with the content and exactly the mode, whatever the umask; on an error
// nothing is left.
func writeNew(path string, content io.Reader, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err == nil {
		err = file.Chmod(mode)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// PutFile stores the content of the regular file at path, which nobody may write to any more, and
// gives its digest. A large file becomes a hard link of the store's where that is possible: its
// mode is then 0444 and its owner the store's; the caller may remove path but not write to it.
// Errors: ErrFull, ErrTooLarge, ErrCorrupt when the file changed meanwhile, those of reading it.
func (s *Store) PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	d, err := s.putFile(ctx, fn, path)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("put file %s: %w", path, err)
	}
	return d, nil
}

func (s *Store) putFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return digest.Digest{}, err
	}
	if !info.Mode().IsRegular() {
		return digest.Digest{}, errors.New("not a regular file")
	}
	if info.Size() > s.options.MaxBlob {
		return digest.Digest{}, ErrTooLarge
	}
	file, err := os.Open(path)
	if err != nil {
		return digest.Digest{}, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil || !info.Mode().IsRegular() {
		return digest.Digest{}, errors.Join(err, errors.New("replaced while it was read"))
	}
	if info.Size() <= s.options.InlineLimit {
		data, err := io.ReadAll(io.LimitReader(file, s.options.InlineLimit+1))
		if err != nil {
			return digest.Digest{}, err
		}
		d := fn.Of(data)
		return d, s.Put(ctx, d, data)
	}
	return s.putLargeFile(ctx, fn, file, info)
}

// putLargeFile hashes an open file and links or copies it into the store.
func (s *Store) putLargeFile(ctx context.Context, fn digest.Function, file *os.File, info os.FileInfo) (digest.Digest, error) {
	hasher := fn.NewHasher()
	if _, err := io.Copy(hasher, interruptible{ctx, io.LimitReader(file, info.Size()+1)}); err != nil {
		return digest.Digest{}, err
	}
	d := hasher.Digest()
	if d.Size() != info.Size() {
		return digest.Digest{}, fmt.Errorf("size changed while it was read: %w", ErrCorrupt)
	}
	if _, err := s.lookup(d); err == nil {
		return d, nil
	}
	if err := s.log.Reserve(d.Size()); err != nil {
		return digest.Digest{}, err
	}
	if name, ok := s.linkUpload(file.Name(), info); ok {
		return d, s.adopt(d, name)
	}
	s.log.Unreserve(d.Size())
	w, err := s.NewWriter(ctx, d)
	if err != nil {
		return digest.Digest{}, err
	}
	defer w.Abort()
	if _, err := io.Copy(w, io.NewSectionReader(file, 0, info.Size())); err != nil {
		return digest.Digest{}, err
	}
	return d, w.Commit()
}

// linkUpload links the file that info describes as an upload of the store's own mode and owner. It
// reports false where that cannot be done, or where the file has other links, through which it
// could be written to.
func (s *Store) linkUpload(path string, info os.FileInfo) (string, bool) {
	if links(info) != 1 {
		return "", false
	}
	place, err := s.files.create()
	if err != nil {
		return "", false
	}
	name := place.Name()
	place.Close()
	os.Remove(name)
	if err := os.Link(path, name); err != nil {
		return "", false
	}
	linked, err := os.Lstat(name)
	if err == nil && os.SameFile(linked, info) && linked.Size() == info.Size() && linked.ModTime().Equal(info.ModTime()) {
		err = takeOver(name)
		if err == nil {
			return name, true
		}
	}
	os.Remove(name) // else the next Open does
	return "", false
}

// interruptible ends a long read with its context.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

var _ record.Owner = (*files)(nil)
