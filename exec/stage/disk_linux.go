package stage

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bootID identifies this boot of the machine, "" when unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// syncLayers writes everything on dir's file system to the disk.
func syncLayers(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return os.NewSyscallError("syncfs", err)
	}
	return nil
}

// setLinkTime sets the times of the symbolic link itself.
func setLinkTime(path string, t time.Time) error {
	times, err := timespecs(t)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// sharedByLayers tells whether a file that Materialize made has the inode of another layer's: more names than here and
// in the store.
func sharedByLayers(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Nlink > 2
}

func ownedBy(info fs.FileInfo, o Owner) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == o.UID && int(st.Gid) == o.GID
}

// create makes the file in the directory at. O_EXCL and O_NOFOLLOW: a name that is there, also a link,
// is an error.
func (n *newFile) create(at *os.File) error {
	times, err := timespecs(n.mtime)
	if err != nil {
		return err
	}
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(at.Fd()), n.name, flags, uint32(n.mode))
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	for rest := n.data; len(rest) > 0 && err == nil; {
		var done int
		if done, err = unix.Write(fd, rest); err == unix.EINTR {
			err = nil
		} else if err == nil {
			rest = rest[done:]
		}
	}
	if err == nil && n.owner != nil {
		err = unix.Fchown(fd, n.owner.UID, n.owner.GID)
	}
	if err == nil && n.chmod {
		err = unix.Fchmod(fd, uint32(n.mode))
	}
	if err == nil {
		err = futimens(fd, &times)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return os.NewSyscallError("create file", err)
}

// linkInto gives the file at source, which is no link, another name in the directory at.
func linkInto(source string, at *os.File, name string) error {
	return os.NewSyscallError("linkat", unix.Linkat(unix.AT_FDCWD, source, int(at.Fd()), name, 0))
}

// futimens sets the times of an open file. The C library's function is this call without a path; the
// wrapper of package unix always passes one.
func futimens(fd int, times *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func timespecs(t time.Time) (times [2]unix.Timespec, err error) {
	times[0], err = unix.TimeToTimespec(t)
	times[1] = times[0]
	return times, err
}
