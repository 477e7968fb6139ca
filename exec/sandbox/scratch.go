package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
)

// scratch is the layout of a run's private directory.
type scratch struct {
	upper, work    string
	stdout, stderr *os.File
}

// owner is the user an action is outside of the sandbox. If need is false, that is the node itself.
type owner struct {
	uid, gid int
	need     bool
}

// newScratch makes the directories and files of a run, owned by the guest.
func newScratch(dir string, guest owner) (*scratch, error) {
	s := &scratch{upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}
	for _, d := range []string{dir, s.upper, s.work} {
		if err := os.Mkdir(d, 0o755); err != nil && !os.IsExist(err) {
			return nil, fmt.Errorf("make scratch directory: %w", err)
		}
		if guest.need {
			if err := os.Chown(d, guest.uid, guest.gid); err != nil {
				return nil, fmt.Errorf("give scratch directory to guest: %w", err)
			}
		}
	}
	var err error
	if s.stdout, err = outputFile(filepath.Join(dir, "stdout"), guest); err != nil {
		return nil, err
	}
	if s.stderr, err = outputFile(filepath.Join(dir, "stderr"), guest); err != nil {
		_ = s.stdout.Close()
		return nil, err
	}
	return s, nil
}

// outputFile opens a file for standard output or error. It is opened to append, so that a program that opens /dev/stdout
// again does not overwrite what is there, and belongs to the guest, so that it can.
func outputFile(path string, guest owner) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open output file: %w", err)
	}
	if guest.need {
		if err := f.Chown(guest.uid, guest.gid); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("give output file to guest: %w", err)
		}
	}
	return f, nil
}

// close closes the files and removes what only the mounts needed; the kernel leaves a directory nobody may enter in work.
func (s *scratch) close() {
	_ = Remove(s.work)
	_ = s.stdout.Close()
	_ = s.stderr.Close()
}

// written gives the bytes of standard output and error.
func (s *scratch) written() int64 {
	var sum int64
	for _, f := range []*os.File{s.stdout, s.stderr} {
		if info, err := f.Stat(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}
