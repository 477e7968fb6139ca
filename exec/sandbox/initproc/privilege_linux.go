package initproc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// limit sets the limits the kernel keeps by itself. They hold for init too, which needs little.
func (s *Setup) limit() *failure {
	limits := []struct {
		resource int
		value    int64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, s.FileBytes},
		{unix.RLIMIT_NPROC, s.Processes},
	}
	for _, l := range limits {
		if l.value == 0 && l.resource != unix.RLIMIT_CORE {
			continue
		}
		r := unix.Rlimit{Cur: uint64(l.value), Max: uint64(l.value)}
		if err := unix.Setrlimit(l.resource, &r); err != nil {
			return fail(StageLimits, "", err)
		}
	}
	return nil
}

// dropPrivileges gives up all capabilities for good and forbids to gain any by exec. It holds for this thread, which is
// the one that forks the action. The other threads of init keep what they have; the action cannot reach them, because
// init is not dumpable: neither ptrace nor /proc/1 is open to it.
func dropPrivileges() *failure {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail(StagePrivileges, "dumpable", err)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// EINVAL: a kernel that knows fewer; EPERM: there was none to begin with.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err == unix.EINVAL || err == unix.EPERM {
			break
		} else if err != nil {
			return fail(StagePrivileges, "bounding set", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fail(StagePrivileges, "ambient set", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fail(StagePrivileges, "capabilities", err)
	}
	return fail(StagePrivileges, "no new privileges", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

// installFilter puts the system call filter on this thread and on everything it will start.
func installFilter() *failure {
	program := filter()
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return fail(StageFilter, "", unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0))
}

// Offsets into struct seccomp_data (little endian: the low half of an argument comes first).
const (
	dataNumber = 0
	dataArch   = 4
	dataArg0   = 16
	dataArg1   = 24
)

const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

// allowedFamilies are the socket families that network namespaces contain. All others are refused: some (vsock) reach
// out of the namespace, and most only load kernel modules nobody uses.
var allowedFamilies = [...]uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// deniedCalls answer EPERM: ways out of a sandbox, or parts of the kernel with a history of being one, that no compiler
// or test needs. ptrace stays allowed: leak sanitizers use it, and it ends at the pid namespace.
var deniedCalls = [...]uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETNS,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SYSLOG,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES, unix.SYS_KCMP, unix.SYS_NFSSERVCTL,
}

// missingCalls answer ENOSYS: programs fall back to something the filter can look into (clone3 hides its flags behind a
// pointer) or do without.
var missingCalls = [...]uint32{
	unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
}

// filter assembles the program. Jumps are short, so every rule returns by itself.
func filter() []unix.SockFilter {
	p := program{}
	p.load(dataArch)
	p.unless(nativeArch, unix.SECCOMP_RET_KILL_PROCESS)
	p.load(dataNumber)
	p.foreignNumbers()
	for _, nr := range deniedCalls {
		p.when(nr, errno(unix.EPERM))
	}
	for _, nr := range missingCalls {
		p.when(nr, errno(unix.ENOSYS))
	}
	for _, nr := range [...]uint32{unix.SYS_CLONE, unix.SYS_UNSHARE} {
		p.call(nr, dataArg0, func() { p.whenAny(newNamespaces, errno(unix.EPERM)) })
	}
	p.call(unix.SYS_IOCTL, dataArg1, func() {
		p.when(unix.TIOCSTI, errno(unix.EPERM))
		p.when(tioclinux, errno(unix.EPERM))
	})
	for _, nr := range [...]uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		p.call(nr, dataArg0, func() {
			for _, family := range allowedFamilies {
				p.when(family, unix.SECCOMP_RET_ALLOW)
			}
			p.ret(errno(unix.EAFNOSUPPORT))
		})
	}
	p.ret(unix.SECCOMP_RET_ALLOW)
	return p
}

// tioclinux is TIOCLINUX: pastes into a console.
const tioclinux = 0x541C

func errno(e syscall.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

type program []unix.SockFilter

func (p *program) add(code uint16, jt, jf uint8, k uint32) {
	*p = append(*p, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
}

func (p *program) load(offset uint32) { p.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset) }

func (p *program) ret(value uint32) { p.add(unix.BPF_RET|unix.BPF_K, 0, 0, value) }

// when returns value if the accumulator equals k.
func (p *program) when(k, value uint32) {
	p.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 1, k)
	p.ret(value)
}

// unless returns value if the accumulator differs from k.
func (p *program) unless(k, value uint32) {
	p.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 1, 0, k)
	p.ret(value)
}

// whenAny returns value if any bit of k is set in the accumulator.
func (p *program) whenAny(k, value uint32) {
	p.add(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, 0, 1, k)
	p.ret(value)
}

// call runs rules on one argument of system call nr; the accumulator holds the number before and after. Only the low
// half of an argument is looked at: all these are ints in the kernel.
func (p *program) call(nr, argument uint32, rules func()) {
	at := len(*p)
	p.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 0, nr)
	p.load(argument)
	rules()
	p.load(dataNumber)
	(*p)[at].Jf = uint8(len(*p) - at - 1)
}
