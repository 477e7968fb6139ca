package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Remove removes a scratch directory, with all an action may have left in it: directories that their owner may not enter
// stop os.RemoveAll where the node is not root. Links are not followed. Nothing may run in the directory any more.
func Remove(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700) // WalkDir calls before it reads the directory
		}
		return nil
	})
	return os.RemoveAll(dir)
}
