package initproc

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// prepareTemplate makes the root that all runs of this spawner start from: host tools, devices, an empty /build, the
// directory of all runs at /tmp, the machine's /proc. A run gets a copy of these mounts, and puts its own over some of
// them. Nothing in the template can be written to, but the directory of all runs, which no action gets to see.
func (s *Setup) prepareTemplate() *failure {
	if f := s.becomeGuest(); f != nil {
		return f
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fail(StageRoot, s.Hostname, err)
	}
	base, err := cloneTree(".", unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
	if err != nil {
		return fail(StageBind, s.Base, err)
	}
	defer unix.Close(base)
	if f := s.mountRoot(); f != nil {
		return f
	}
	if f := s.mountDev(); f != nil {
		return f
	}
	if err := attach(base, s.NewRoot+"/tmp"); err != nil {
		return fail(StageBind, s.Base, err)
	}
	proc, err := cloneTree("/proc", unix.MountAttr{})
	if err != nil {
		return fail(StageBind, "/proc", err)
	}
	defer unix.Close(proc)
	if err := attach(proc, s.NewRoot+"/proc"); err != nil {
		return fail(StageBind, "/proc", err)
	}
	return pivot(s.NewRoot)
}

// pivot makes root the root file system, takes the old one away, and makes the new one read-only.
func pivot(root string) *failure {
	if err := unix.Chdir(root); err != nil {
		return fail(StagePivot, root, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fail(StagePivot, root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fail(StagePivot, "detach old root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fail(StagePivot, "/", err)
	}
	for _, path := range []string{"/", "/dev"} {
		if err := setReadOnly(path, 0); err != nil {
			return fail(StageRoot, path, err)
		}
	}
	return nil
}

// cloneTree gives a detached copy of the mounts at path and below.
func cloneTree(path string, attr unix.MountAttr) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil || attr == (unix.MountAttr{}) {
		return tree, err
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		_ = unix.Close(tree)
		return 0, err
	}
	return tree, nil
}

func attach(tree int, target string) error {
	return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// protectedProc are the parts of /proc that steer the machine; they are read-only for a guest that is root inside.
var protectedProc = [...]string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"}

// becomeGuest goes to the base directory and takes on the guest's ids. The base may lie in a directory that only the
// node's owner may search, so the order matters. Supplementary groups of the node are given up.
func (s *Setup) becomeGuest() *failure {
	if err := unix.Chdir(s.Base); err != nil {
		return fail(StageUser, s.Base, err)
	}
	if s.Flags&BecomeGuest == 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fail(StageUser, "groups", err)
	}
	if err := syscall.Setresgid(int(s.GID), int(s.GID), int(s.GID)); err != nil {
		return fail(StageUser, "gid", err)
	}
	if err := syscall.Setresuid(int(s.UID), int(s.UID), int(s.UID)); err != nil {
		return fail(StageUser, "uid", err)
	}
	// Files of /proc/self belong to root without it; init takes it back before it starts an action.
	return fail(StageUser, "dumpable", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
}

// mountRoot mounts a new root with the host's tools, and an empty /build.
func (s *Setup) mountRoot() *failure {
	if err := unix.Mount("tmpfs", s.NewRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m,nr_inodes=4096"); err != nil {
		return fail(StageRoot, s.NewRoot, err)
	}
	for _, d := range []string{"build", "proc", "dev", "tmp", "home"} {
		if err := unix.Mkdir(s.NewRoot+"/"+d, 0o755); err != nil {
			return fail(StageRoot, d, err)
		}
	}
	for _, l := range s.Links {
		if err := unix.Symlink(l.Target, s.NewRoot+l.Name); err != nil {
			return fail(StageRoot, l.Name, err)
		}
	}
	for _, b := range s.Binds {
		b.Target = s.NewRoot + b.Target
		if f := b.mount(); f != nil {
			return f
		}
	}
	return nil
}

// escape protects the characters that separate overlay options and layers.
func escape(path string) string {
	out := make([]byte, 0, len(path))
	for i := range len(path) {
		if c := path[i]; c == ':' || c == ',' || c == '\\' {
			out = append(out, '\\')
		}
		out = append(out, path[i])
	}
	return string(out)
}

// mount binds Source, with all that is mounted below it, on Target, which it makes. Both may be relative to the working
// directory.
func (b Bind) mount() *failure {
	var err error
	if b.File {
		err = touch(b.Target)
	} else if f := makeAll(b.Target); f != nil {
		return f
	}
	if err != nil {
		return fail(StageBind, b.Target, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	if !b.Writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if b.Device {
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	} else {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	tree, err := cloneTree(b.Source, attr)
	if err != nil {
		return fail(StageBind, b.Source, err)
	}
	defer unix.Close(tree)
	return fail(StageBind, b.Target, attach(tree, b.Target))
}

func touch(path string) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// setReadOnly makes the mount at path read-only; with AT_RECURSIVE all mounts below it too.
func setReadOnly(path string, flags uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, path, flags, &attr)
}

var devices = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

var deviceLinks = [...]Link{
	{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"},
}

// mountDev makes a minimal /dev in the new root.
func (s *Setup) mountDev() *failure {
	dev := s.NewRoot + "/dev"
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,nr_inodes=64,size=64k"); err != nil {
		return fail(StageDev, dev, err)
	}
	for _, name := range devices {
		b := Bind{Source: "/dev/" + name, Target: dev + "/" + name, File: true, Writable: true, Device: true}
		if f := b.mount(); f != nil {
			return f
		}
	}
	for _, l := range deviceLinks {
		if err := unix.Symlink(l.Target, s.NewRoot+l.Name); err != nil {
			return fail(StageDev, l.Name, err)
		}
	}
	for _, name := range []string{"/pts", "/shm"} {
		if err := unix.Mkdir(dev+name, 0o755); err != nil {
			return fail(StageDev, name, err)
		}
	}
	return nil
}

func decimal(n int64) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
