package initproc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// confine restricts this thread, and what it starts, to the trees of Readable and Writable with Landlock. It is what is
// left where no namespaces are to be had: it hides nothing, it only refuses.
func (s *Setup) confine() *failure {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fail(StageLandlock, "no new privileges", err)
	}
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fail(StageLandlock, "version", errno)
	}
	attr := landlockRights(int(version), s.Flags&Offline != 0)
	size := uintptr(24)
	if version < 4 {
		size = 8
	} else if version < 6 {
		size = 16
	}
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return fail(StageLandlock, "create", errno)
	}
	defer unix.Close(int(rules))
	for _, path := range s.Readable {
		if f := allowBeneath(int(rules), path, attr.Handled_access_fs&readRights); f != nil {
			return f
		}
	}
	for _, path := range s.Writable {
		if f := allowBeneath(int(rules), path, attr.Handled_access_fs); f != nil {
			return f
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return fail(StageLandlock, "restrict", errno)
	}
	return nil
}

const (
	readRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
	firstRights = 1<<13 - 1 // everything version 1 knows
)

// landlockRights are all rights the kernel's version can refuse: file access, TCP (version 4), signals and abstract
// sockets of processes outside (version 6).
func landlockRights(version int, offline bool) unix.LandlockRulesetAttr {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: firstRights}
	if version >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 4 && offline {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return attr
}

// allowBeneath grants rights below path. A path that does not exist needs no rule.
func allowBeneath(rules int, path string, rights uint64) *failure {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fail(StageLandlock, path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(StageLandlock, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&beneath)), 0, 0, 0); errno != 0 {
		return fail(StageLandlock, path, errno)
	}
	return nil
}
