//go:build !linux

package stage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// bootID is unknown here: layers survive only a clean Close.
func bootID() string { return "" }

// syncLayers does nothing here. A power cut soon after Close may cost layers their content; the
// sampling at release finds it.
func syncLayers(string) error { return nil }

// setLinkTime does nothing here: a link keeps the time of its creation.
func setLinkTime(string, time.Time) error { return nil }

// sharedByLayers is unknown here, so such files are copied.
func sharedByLayers(fs.FileInfo) bool { return true }

func ownedBy(fs.FileInfo, Owner) bool { return false }

// create makes the file in the directory at, whose name is a path here.
func (n *newFile) create(at *os.File) error {
	path := filepath.Join(at.Name(), n.name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, n.mode|0o200)
	if err != nil {
		return err
	}
	_, err = f.Write(n.data)
	if err == nil && n.owner != nil {
		err = f.Chown(n.owner.UID, n.owner.GID)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Chtimes(path, n.mtime, n.mtime)
	}
	if err == nil {
		err = os.Chmod(path, n.mode)
	}
	return err
}

// linkInto gives the file at source another name in the directory at.
func linkInto(source string, at *os.File, name string) error {
	return os.Link(source, filepath.Join(at.Name(), name))
}
