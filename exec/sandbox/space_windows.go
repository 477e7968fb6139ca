package sandbox

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

// freeBytes is what the node can still write on the volume of path, quotas included.
func freeBytes(path string) (int64, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(min(free, 1<<62)), nil
}

// allocatedBytes is the length of a file: what a sparse one really takes is not asked for.
func allocatedBytes(info fs.FileInfo) int64 { return info.Size() }
