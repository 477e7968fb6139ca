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

// probes begins the names of the directories of test runs.
const probes = "probe-"

// sweepProbes removes the directories of test runs whose node was killed meanwhile.
func sweepProbes(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, probes+"*")) // an error is about the pattern
	for _, one := range left {
		_ = Remove(one)
	}
}
