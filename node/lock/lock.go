package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// File is the name of the lock file in the directory.
const File = "lock"

// errBusy means that another process, or another open file of this one, holds the lock.
var errBusy = errors.New("locked")

// HeldError tells that another process uses the directory.
type HeldError struct {
	Dir string
	PID int // 0 when not known
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("directory %s is in use by another node", e.Dir)
	}
	return fmt.Sprintf("directory %s is in use by another node (pid %d)", e.Dir, e.PID)
}

// Lock is the right to use a directory.
type Lock struct{ file *os.File }

// Acquire takes the lock of a directory that exists. Errors: *HeldError.
func Acquire(dir string) (*Lock, error) {
	path := filepath.Join(dir, File)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock directory: %w", err)
	}
	if err := take(file); err != nil {
		defer file.Close()
		if errors.Is(err, errBusy) {
			return nil, &HeldError{Dir: dir, PID: holder(file)}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := errors.Join(file.Truncate(0), record(file)); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{file}, nil
}

// Close gives the directory free.
func (l *Lock) Close() error {
	// Emptied first, so that nobody reads the id of a process that has gone.
	return errors.Join(l.file.Truncate(0), l.file.Close())
}

// record writes who holds the lock.
func record(file *os.File) error {
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder reads who holds the lock; 0 when the file does not tell.
func holder(file *os.File) int {
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
