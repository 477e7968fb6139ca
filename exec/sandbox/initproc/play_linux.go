package initproc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Everything in this file runs in a process that was forked and has not called exec. The functions are nosplit, so that
// they never ask for more stack nor give way to the scheduler, and use nothing but raw system calls and memory that the
// tape has made before. All signals are blocked, and stay so in init.

// fork makes a process that plays the tape in new namespaces. It is called on a thread that has all signals blocked.
//
//go:nosplit
//go:norace
func (t *tape) fork(flags uintptr, pidfd *int32) (int, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags|unix.CLONE_PIDFD, 0, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	if errno == 0 && pid == 0 {
		t.play()
	}
	return int(pid), errno
}

// play does not return.
//
//go:nosplit
//go:norace
func (t *tape) play() {
	for i := range t.ops {
		o := &t.ops[i]
		first := o.args[0]
		if o.fd != 0 {
			first = t.registers[o.fd&3]
		}
		result, _, errno := syscall.RawSyscall6(o.number, first, o.args[1], o.args[2], o.args[3], o.args[4], o.args[5])
		if errno != 0 && errno != o.allow[0] && errno != o.allow[1] {
			t.fault(o.stage, errno, o.subject)
		}
		if o.end && result == 0 {
			exit(1)
		}
		if o.save != 0 {
			t.registers[o.save&3] = result
		}
	}
	t.time()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		t.fault(StageExec, errno, "")
	}
	if pid == 0 {
		t.exec()
	}
	t.send(Started, 0) // if nobody listens, neither the node nor the spawner is there
	t.reap(pid)
	_, _, _ = syscall.RawSyscall6(unix.SYS_GETRUSAGE, ^uintptr(0), uintptr(unsafe.Pointer(&t.usage)), 0, 0, 0, 0)
	t.count()
	t.time()
	t.send(Ended, 0)
	exit(0)
}

// exec becomes the action, trying one path after the other as execvp does.
//
//go:nosplit
//go:norace
func (t *tape) exec() {
	if t.background {
		_, _, _ = syscall.RawSyscall6(unix.SYS_SETPGID, 0, 0, 0, 0, 0, 0)
	} else {
		_, _, _ = syscall.RawSyscall6(unix.SYS_SETSID, 0, 0, 0, 0, 0, 0)
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&t.mask[0])), 0, 8, 0, 0)
	result := syscall.Errno(unix.ENOENT)
	for _, path := range t.programs {
		errno := t.tryExec(path)
		switch errno {
		case unix.ENOENT, unix.ENOTDIR:
			if len(t.programs) == 1 {
				result = errno
			}
			continue
		case unix.EACCES:
			result = errno
			continue
		}
		result = errno
		break
	}
	t.fault(StageExec, result, "")
}

// tryExec starts one program, again and again while it is still open for writing: another process that was forked while
// the program was being written keeps it open for a moment.
//
//go:nosplit
//go:norace
func (t *tape) tryExec(path uintptr) syscall.Errno {
	t.tick = unix.Timespec{Nsec: int64(busyPause)}
	for try := 0; ; try++ {
		_, _, errno := syscall.RawSyscall6(unix.SYS_EXECVE, path, uintptr(unsafe.Pointer(&t.argv[0])), uintptr(unsafe.Pointer(&t.envp[0])), 0, 0, 0)
		if errno != unix.ETXTBSY || try >= busyRetries {
			return errno
		}
		_, _, _ = syscall.RawSyscall6(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t.tick)), 0, 0, 0, 0, 0)
	}
}

// reap waits until the action itself has ended, and watches the memory of all processes meanwhile if it is asked to.
//
//go:nosplit
//go:norace
func (t *tape) reap(action uintptr) {
	options := uintptr(0)
	if t.memory > 0 {
		options = unix.WNOHANG
	}
	for {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&t.status)), options, 0, 0, 0)
		if errno != 0 || pid == action {
			return
		}
		if pid != 0 {
			continue
		}
		t.tick = unix.Timespec{Nsec: int64(watchPause)}
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&t.mask[1])), 0, uintptr(unsafe.Pointer(&t.tick)), 8, 0, 0)
		if t.resident() > t.memory {
			t.report[atMemory] = 1
			_, _, _ = syscall.RawSyscall6(unix.SYS_KILL, ^uintptr(0), uintptr(unix.SIGKILL), 0, 0, 0, 0)
		}
	}
}

var procDirectory = [...]byte{'/', 'p', 'r', 'o', 'c', '/', 0}

// resident sums the resident memory of all processes but init, in bytes. Shared pages count once for every process that
// has them mapped, so it errs to the strict side, by the size of shared libraries.
//
//go:nosplit
//go:norace
func (t *tape) resident() int64 {
	dir, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT, here, uintptr(unsafe.Pointer(&procDirectory[0])), unix.O_DIRECTORY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	var pages int64
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_GETDENTS64, dir, uintptr(unsafe.Pointer(&t.buffer[0])), uintptr(len(t.buffer)), 0, 0, 0)
		if errno != 0 || n == 0 {
			break
		}
		for at := uintptr(0); at+20 < n; {
			name := t.buffer[at+19:]
			if name[0] >= '1' && name[0] <= '9' && (name[0] != '1' || name[1] != 0) {
				pages += t.pages(name)
			}
			at += uintptr(t.buffer[at+16]) | uintptr(t.buffer[at+17])<<8
		}
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_CLOSE, dir, 0, 0, 0, 0, 0)
	return pages * 4096
}

// pages reads the second number of the statm file of a process.
//
//go:nosplit
//go:norace
func (t *tape) pages(name []byte) int64 {
	n := copy(t.path[:], procDirectory[:6])
	for i := 0; i < len(name) && name[i] != 0 && n < 31; i++ {
		t.path[n] = name[i]
		n++
	}
	copy(t.path[n&31:], "/statm\x00")
	fd, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT, here, uintptr(unsafe.Pointer(&t.path[0])), unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	got, _, errno := syscall.RawSyscall6(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&t.path[0])), uintptr(len(t.path)), 0, 0, 0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	field, value := 0, int64(0)
	for i := 0; i < int(got) && i < len(t.path) && field < 2; i++ {
		switch c := t.path[i]; {
		case c == ' ':
			field++
		case field == 1:
			value = value*10 + int64(c-'0')
		}
	}
	return value
}

// Offsets into an encoded Report.
const (
	atKind    = 4
	atStage   = 5
	atErrno   = 6
	atStatus  = 10
	atMemory  = 14
	atTime    = 15
	atUsage   = 23
	atLength  = 95
	atSubject = 99
)

// fault reports a failure and ends the process.
//
//go:nosplit
//go:norace
func (t *tape) fault(stage Stage, errno syscall.Errno, subject string) {
	t.report[atStage] = byte(stage)
	t.put(atErrno, uint64(errno), 4)
	t.put(atLength, uint64(len(subject)), 4)
	copy(t.report[atSubject:], subject)
	t.send(Fault, len(subject))
	exit(1)
}

// send writes the report, with so many bytes of subject. If it cannot, nobody is there to care for this process.
//
//go:nosplit
//go:norace
func (t *tape) send(kind Kind, subject int) {
	t.put(0, reportMagic, 4)
	t.report[atKind] = byte(kind)
	_, _, errno := syscall.RawSyscall6(unix.SYS_WRITE, t.reportFD, uintptr(unsafe.Pointer(&t.report[0])), uintptr(reportHead+subject), 0, 0, 0)
	if errno != 0 {
		exit(1)
	}
}

//go:nosplit
//go:norace
func (t *tape) time() {
	_, _, _ = syscall.RawSyscall6(unix.SYS_CLOCK_GETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&t.now)), 0, 0, 0, 0)
	t.put(atTime, uint64(t.now.Sec)*1e9+uint64(t.now.Nsec), 8)
}

// count puts the wait status and the usage into the report.
//
//go:nosplit
//go:norace
func (t *tape) count() {
	t.put(atStatus, uint64(t.status), 4)
	u := &t.usage
	t.put(atUsage, uint64(u.Utime.Sec)*1e9+uint64(u.Utime.Usec)*1e3, 8)
	t.put(atUsage+8, uint64(u.Stime.Sec)*1e9+uint64(u.Stime.Usec)*1e3, 8)
	t.put(atUsage+16, uint64(u.Maxrss)*1024, 8)
	t.put(atUsage+24, uint64(u.Inblock), 8)
	t.put(atUsage+32, uint64(u.Oublock), 8)
	t.put(atUsage+40, uint64(u.Minflt), 8)
	t.put(atUsage+48, uint64(u.Majflt), 8)
	t.put(atUsage+56, uint64(u.Nvcsw), 8)
	t.put(atUsage+64, uint64(u.Nivcsw), 8)
}

//go:nosplit
//go:norace
func (t *tape) put(at int, value uint64, size int) {
	for i := range size {
		t.report[at+i] = byte(value >> (8 * i))
	}
}

//go:nosplit
//go:norace
func exit(code uintptr) {
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_EXIT_GROUP, code, 0, 0, 0, 0, 0)
	}
}
