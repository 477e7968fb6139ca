package cas

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// seal gives the file of a large blob, whose content was verified, tree.ModTime: whoever writes to it afterwards leaves another
// time, and being linked into input trees changes nothing. One that cannot have it is verified whenever it is opened.
func seal(path string) { _ = os.Chtimes(path, time.Time{}, tree.ModTime) }

// unspoilt sees to it that the file of d at path, which the caller has pinned, has the content it was stored with. One that
// somebody has written to since is hashed: it is sealed anew, or the blob is taken out of the store. What a disk changes by
// itself leaves no trace: that is what Verify is for. Errors: ErrNotFound when the blob was taken out. That there is no file
// is for the caller to find.
func (s *Store) unspoilt(d digest.Digest, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() == d.Size() && info.ModTime().Equal(tree.ModTime) {
		return nil
	}
	switch err = s.files.verify(path, d, io.Discard); {
	case err == nil:
		seal(path)
		return nil
	case errors.Is(err, fs.ErrNotExist): // somebody else has just found the same
		return ErrNotFound
	case !errors.Is(err, ErrCorrupt):
		return err
	}
	if err := s.quarantine(d); err != nil {
		return err
	}
	return ErrNotFound
}
