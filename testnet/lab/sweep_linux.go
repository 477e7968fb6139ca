package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the name of every lab's directory.
const prefix = "buildmesh-lab-"

// claim makes a directory for a lab, with a lock in it that ends with this process.
func claim(parent string) (string, *os.File, error) {
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return "", nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, fmt.Errorf("lock the lab's directory: %w", err)
	}
	return dir, lock, nil
}

// young is the age below which a directory without a held lock may be one that claim is just making.
const young = time.Minute

// sweep removes the directories of labs that were killed. Their processes and namespaces died with them.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < young {
			continue
		}
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err == nil && unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			unmount(dir)
			_ = os.RemoveAll(dir)
		}
		if err == nil {
			_ = lock.Close()
		}
	}
}
