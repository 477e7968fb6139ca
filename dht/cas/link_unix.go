//go:build unix

package cas

import (
	"os"
	"syscall"
)

// links is how many names a file has.
func links(info os.FileInfo) int {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return int(st.Nlink)
}

// takeOver gives a file the store's owner and mode, so that its former owner cannot write to it.
func takeOver(path string) error {
	if err := os.Chown(path, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	return os.Chmod(path, fileMode)
}
