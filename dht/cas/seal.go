package cas

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// ModTime is the time of modification of every large blob's file: whoever writes to one afterwards leaves another time. It
// is the one that exec/stage gives to what it links into input trees.
var ModTime = time.Unix(1321009871, 0).UTC() // 2011-11-11T11:11:11Z

// seal gives a file whose content was verified ModTime. One that cannot have it is verified whenever it is opened.
func seal(path string) { _ = os.Chtimes(path, time.Time{}, ModTime) }

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
	if info.Size() == d.Size() && info.ModTime().Equal(ModTime) {
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
