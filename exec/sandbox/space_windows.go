package sandbox

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

// diskBytes is what the node can still write on the volume of path, and the size of all of it, quotas included.
func diskBytes(path string) (free, total int64, err error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, 0, err
	}
	var left, all uint64
	if err := windows.GetDiskFreeSpaceEx(name, &left, &all, nil); err != nil {
		return 0, 0, err
	}
	return int64(min(left, 1<<62)), int64(min(all, 1<<62)), nil
}

// allocatedBytes is the length of a file: what a sparse one really takes is not asked for.
func allocatedBytes(info fs.FileInfo) int64 { return info.Size() }
