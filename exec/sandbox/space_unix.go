//go:build linux || darwin

package sandbox

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// diskBytes is what an ordinary user can still write on the file system of path, and the size of all of it.
func diskBytes(path string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

// allocatedBytes is what a file takes on disk, holes left out.
func allocatedBytes(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return 0
}
