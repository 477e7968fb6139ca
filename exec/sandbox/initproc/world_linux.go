package initproc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// descriptors are what a run comes with.
type descriptors struct {
	stdout, stderr, report int
	hold                   int // read before the action starts, 0 for none: end of file means that there is to be none
}

// compile writes down how the world of a run is made from the template and its action started.
func (s *Setup) compile(d descriptors) (*tape, *failure) {
	t := newTape()
	t.reportFD, t.mask[1] = uintptr(d.report), 1<<(uint(unix.SIGCHLD)-1)
	if s.Flags&WatchMemory != 0 {
		t.memory = s.MemoryBytes
	}
	t.background = s.Flags&Background != 0
	t.descend(d)
	if s.Flags&Loopback != 0 {
		t.loopback()
	}
	s.overlay(t)
	s.special(t)
	if s.Flags&WholeRoot != 0 {
		t.switchRoot()
	}
	s.directories(t)
	if s.Flags&OwnUsers != 0 { // from here on no mount can be changed any more
		s.ownUsers(t)
	}
	if d.hold != 0 {
		t.at(StageSetup, "control group")
		t.call(unix.SYS_READ, uintptr(d.hold), uintptr(unsafe.Pointer(&t.buffer[0])), 1).end = true
	}
	s.resources(t)
	t.drop()
	t.filter()
	return t, t.program(s)
}

// descend ties the new process to the spawner, and leaves it no descriptor but its own.
func (t *tape) descend(d descriptors) {
	t.at(StageSetup, "descriptors")
	t.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	t.call(unix.SYS_DUP3, uintptr(d.stdout), 1, 0)
	t.call(unix.SYS_DUP3, uintptr(d.stderr), 2, 0)
	low, high := min(d.report, d.hold), max(d.report, d.hold)
	for _, gap := range [][2]int{{3, low - 1}, {max(low+1, 3), high - 1}, {high + 1, 1<<31 - 1}} {
		if gap[0] <= gap[1] {
			t.call(unix.SYS_CLOSE_RANGE, uintptr(gap[0]), uintptr(gap[1]), 0)
		}
	}
}

// loopback brings lo up in the action's own network namespace, so that tests that listen on 127.0.0.1 work.
func (t *tape) loopback() {
	t.at(StageNetwork, "lo")
	request := &struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_UP | unix.IFF_RUNNING}
	copy(request.name[:], "lo")
	t.call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0).into(1)
	t.call(unix.SYS_IOCTL, 0, unix.SIOCSIFFLAGS, address(t, request)).from(1)
	t.call(unix.SYS_CLOSE).from(1)
}

// overlay mounts Lowers, Upper and Work on /build. Layers are added one by one through the new mount interface (Linux 6.8
// and later), where neither their number (up to 500) nor their names are limited by a page of options; older kernels get
// the classic option string. Then the directory of all runs, which was at /tmp, is out of sight. The mount is volatile:
// otherwise its end would write all dirty pages of the whole disk out; what is to last is made durable by who collects it.
func (s *Setup) overlay(t *tape) {
	t.at(StageOverlay, "base")
	t.chdir("/tmp")
	if !hasLayerOption() {
		t.at(StageOverlay, s.Upper)
		t.mount("overlay", "/build", "overlay", unix.MS_NOSUID|unix.MS_NODEV, s.overlayOptions())
	} else {
		t.at(StageOverlay, "open")
		t.call(unix.SYS_FSOPEN, t.str("overlay"), unix.FSOPEN_CLOEXEC).into(1)
		set := func(name, value string) {
			t.at(StageOverlay, value)
			t.call(unix.SYS_FSCONFIG, 0, unix.FSCONFIG_SET_STRING, t.str(name), t.str(value), 0).from(1)
		}
		for _, l := range s.Lowers {
			set("lowerdir+", l)
		}
		set("upperdir", s.Upper)
		set("workdir", s.Work)
		for _, flag := range []string{"userxattr", "volatile"} {
			t.at(StageOverlay, flag)
			t.call(unix.SYS_FSCONFIG, 0, unix.FSCONFIG_SET_FLAG, t.str(flag), 0, 0).from(1)
		}
		t.at(StageOverlay, s.Upper)
		t.call(unix.SYS_FSCONFIG, 0, unix.FSCONFIG_CMD_CREATE, 0, 0, 0).from(1)
		t.call(unix.SYS_FSMOUNT, 0, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV).from(1).into(2)
		t.call(unix.SYS_CLOSE).from(1)
		t.attach(2, "/build")
	}
	t.at(StagePivot, "base")
	t.chdir("/")
	t.unmount("/tmp")
}

// overlayOptions is the classic form; more than a page of it is refused by the kernel.
func (s *Setup) overlayOptions() string {
	options := "userxattr,volatile,upperdir=" + escape(s.Upper) + ",workdir=" + escape(s.Work) + ",lowerdir="
	for i, l := range s.Lowers {
		if i > 0 {
			options += ":"
		}
		options += escape(l)
	}
	return options
}

// hasLayerOption reports whether overlay takes lowerdir+, which is so since Linux 6.8.
func hasLayerOption() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var version [2]int
	part := 0
	for _, c := range u.Release {
		if c >= '0' && c <= '9' && version[part] < 1000 {
			version[part] = version[part]*10 + int(c-'0')
		} else if part++; c != '.' || part == len(version) {
			break
		}
	}
	return version[0] > 6 || version[0] == 6 && version[1] >= 8
}

// special mounts what is new for every run: /proc of the new pid namespace, temporary directories, terminals. The kernel
// allows a new /proc only while an unobstructed one, that of the template, is mounted.
func (s *Setup) special(t *tape) {
	t.at(StageProc, "/proc")
	t.call(unix.SYS_FSOPEN, t.str("proc"), unix.FSOPEN_CLOEXEC).into(1)
	t.call(unix.SYS_FSCONFIG, 0, unix.FSCONFIG_CMD_CREATE, 0, 0, 0).from(1)
	t.call(unix.SYS_FSMOUNT, 0, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC).from(1).into(2)
	t.call(unix.SYS_CLOSE).from(1)
	t.unmount("/proc")
	t.attach(2, "/proc")
	if s.UID == 0 || s.GID == 0 { // for all others the files' modes are enough
		for _, path := range protectedProc {
			if unix.Access(path, unix.F_OK) == nil {
				t.protect(Protection{Path: path})
			}
		}
	}
	t.write("/proc/self/oom_score_adj", "600") // actions die before the owner's programs when the machine has no memory left
	size := ",size=" + decimal(max(s.TmpBytes, 1<<20))
	places := []string{"/tmp", "/dev/shm", "/home"}
	if s.Flags&WholeRoot != 0 {
		places = places[:2]
	}
	for _, path := range places {
		t.at(StageTmp, path)
		t.mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,nr_inodes=1048576"+size)
	}
	t.at(StageDev, "/dev/pts")
	t.mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
}

// switchRoot makes the overlay the root, with the special directories of the template in it.
func (t *tape) switchRoot() {
	for _, path := range []string{"/proc", "/dev", "/tmp"} {
		t.at(StagePivot, path)
		t.call(unix.SYS_MOVE_MOUNT, here, t.str(path), here, t.str("/build"+path), 0)
	}
	t.at(StagePivot, "/build")
	t.chdir("/build")
	t.call(unix.SYS_PIVOT_ROOT, t.str("."), t.str("."))
	t.call(unix.SYS_UMOUNT2, t.str("."), unix.MNT_DETACH)
	t.chdir("/")
}

// ownUsers makes a user namespace for this run alone. The kernel counts the processes of a user by user namespace, so
// without control groups the limit holds for one run only if it has its own.
func (s *Setup) ownUsers(t *tape) {
	t.at(StageUser, "own user namespace")
	t.call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	t.write("/proc/self/setgroups", "deny")
	t.write("/proc/self/uid_map", decimal(int64(s.UID))+" "+decimal(int64(s.UID))+" 1\n")
	t.write("/proc/self/gid_map", decimal(int64(s.GID))+" "+decimal(int64(s.GID))+" 1\n")
}

// directories makes what must exist before the action starts, protects what it must not change, and goes to its working
// directory.
func (s *Setup) directories(t *tape) {
	made := map[string]bool{"/build": s.Flags&WholeRoot == 0}
	for _, d := range s.Directories {
		for i := 1; i <= len(d); i++ {
			if i < len(d) && d[i] != '/' || made[d[:i]] {
				continue
			}
			made[d[:i]] = true
			t.at(StageDirectory, d[:i])
			t.call(unix.SYS_MKDIRAT, here, t.str(d[:i]), 0o755).allowing(unix.EEXIST)
		}
	}
	for _, p := range Protections(s.ReadOnly, s.Writable) {
		t.at(StageReadOnly, p.Path)
		t.protect(p)
	}
	t.at(StageDirectory, s.Directory)
	t.chdir(s.Directory)
}

// resources sets the limits the kernel keeps by itself.
func (s *Setup) resources(t *tape) {
	t.at(StageLimits, "")
	for _, l := range []struct {
		resource uintptr
		value    int64
	}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_FSIZE, s.FileBytes}, {unix.RLIMIT_NPROC, s.Processes}} {
		if l.value > 0 || l.resource == unix.RLIMIT_CORE {
			limit := &unix.Rlimit{Cur: uint64(l.value), Max: uint64(l.value)}
			t.call(unix.SYS_PRLIMIT64, 0, l.resource, address(t, limit), 0)
		}
	}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil { // a Go program may have raised its own
		files.Cur = min(1024, files.Max)
		t.call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, address(t, &files), 0)
	}
}

// drop gives up all capabilities for good and forbids to gain any by exec. Init itself cannot be reached by the action,
// because it is not dumpable: neither ptrace nor /proc/1 is open to it.
func (t *tape) drop() {
	t.at(StagePrivileges, "dumpable")
	t.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	t.at(StagePrivileges, "capabilities")
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ { // EINVAL: a kernel that knows fewer
		t.call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c).allowing(unix.EINVAL)
	}
	t.call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	t.call(unix.SYS_CAPSET, address(t, header), address(t, &[2]unix.CapUserData{}))
	t.at(StagePrivileges, "no new privileges")
	t.call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
}

// filter puts the system call filter on init and on everything it will start.
func (t *tape) filter() {
	t.at(StageFilter, "")
	program := filter()
	t.keep = append(t.keep, program)
	t.call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER,
		address(t, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
}
