package cas

import (
	"os"

	"golang.org/x/sys/unix"
)

// systemDisk is the operating system's answer.
type systemDisk struct{}

// Space implements Disk.
func (systemDisk) Space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// syncFileSystem makes everything on the file system of dir durable.
func syncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// preallocate takes room for size bytes of file. Not every file system can.
func preallocate(file *os.File, size int64) error {
	return unix.Fallocate(int(file.Fd()), 0, 0, size)
}
