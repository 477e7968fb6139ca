package initproc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tape is a list of system calls. What happens between the fork of an init and the start of its action happens in a
// copy of a Go process that has lost all threads but one: nothing there may allocate, lock, or call the scheduler. So the
// spawner writes down beforehand what is to be done, with all memory it takes, and the new process only plays it.
type tape struct {
	ops     []op
	stage   Stage  // of the operations that follow
	subject string // likewise
	keep    []any  // memory that ops point to

	programs []uintptr // paths to try, zero-terminated strings
	argv     []*byte
	envp     []*byte
	reportFD uintptr
	memory   int64 // bytes, 0 = not watched

	background bool // the action begins a process group only, no session

	registers [4]uintptr
	report    []byte
	buffer    []byte // for the memory watch
	path      [64]byte
	status    uint32
	usage     unix.Rusage
	now, tick unix.Timespec
	mask      [2]uint64 // no signal, and SIGCHLD
}

// op is one system call.
type op struct {
	number  uintptr
	args    [6]uintptr
	fd      uint8 // the register that gives args[0]; 0: none
	save    uint8 // the register that keeps the result; 0: none
	end     bool  // a result of zero is the end: nobody is there any more
	allow   [2]syscall.Errno
	stage   Stage
	subject string
}

func newTape() *tape {
	return &tape{report: make([]byte, reportHead+maxSubject), buffer: make([]byte, 8192)}
}

// at names the stage and the subject of what follows, for reports of faults.
func (t *tape) at(stage Stage, subject string) {
	t.stage, t.subject = stage, subject
}

// call adds an operation. The pointer is good until the next one is added.
func (t *tape) call(number uintptr, args ...uintptr) *op {
	o := op{number: number, stage: t.stage, subject: t.subject[:min(len(t.subject), maxSubject)]}
	copy(o.args[:], args)
	t.ops = append(t.ops, o)
	return &t.ops[len(t.ops)-1]
}

func (o *op) from(register uint8) *op { o.fd = register; return o }

func (o *op) into(register uint8) { o.save = register }

func (o *op) allowing(errnos ...syscall.Errno) { copy(o.allow[:], errnos) }

// str gives the address of a zero-terminated copy.
func (t *tape) str(s string) uintptr {
	b := append([]byte(s), 0)
	t.keep = append(t.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// address gives the address of a value that moves neither while the spawner lives nor in its copies.
func address[T any](t *tape, v *T) uintptr {
	t.keep = append(t.keep, v)
	return uintptr(unsafe.Pointer(v))
}

const here = ^uintptr(99) // AT_FDCWD, -100

// write puts a text into a file.
func (t *tape) write(path, text string) {
	t.call(unix.SYS_OPENAT, here, t.str(path), unix.O_WRONLY|unix.O_CLOEXEC).into(1)
	t.call(unix.SYS_WRITE, 0, t.str(text), uintptr(len(text))).from(1)
	t.call(unix.SYS_CLOSE).from(1)
}

func (t *tape) mount(source, target, kind string, flags uintptr, data string) {
	t.call(unix.SYS_MOUNT, t.str(source), t.str(target), t.str(kind), flags, t.str(data))
}

func (t *tape) unmount(path string) { t.call(unix.SYS_UMOUNT2, t.str(path), unix.MNT_DETACH) }

func (t *tape) chdir(path string) { t.call(unix.SYS_CHDIR, t.str(path)) }

// attach mounts the detached mount in a register.
func (t *tape) attach(register uint8, target string) {
	t.call(unix.SYS_MOVE_MOUNT, 0, t.str(""), here, t.str(target), unix.MOVE_MOUNT_F_EMPTY_PATH).from(register)
	t.call(unix.SYS_CLOSE).from(register)
}

// protect makes what is at a path a mount of its own, with all that is mounted below, and gives that mount the
// protection. The root is a mount already, and what is mounted below it keeps its own.
func (t *tape) protect(p Protection) {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if p.Writable {
		attr = &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	}
	if p.Path == "/" {
		t.call(unix.SYS_MOUNT_SETATTR, here, t.str("/"), 0, address(t, attr), unsafe.Sizeof(*attr))
		return
	}
	t.call(unix.SYS_OPEN_TREE, here, t.str(p.Path), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE).into(1)
	t.call(unix.SYS_MOUNT_SETATTR, 0, t.str(""), unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, address(t, attr), unsafe.Sizeof(*attr)).from(1)
	t.attach(1, p.Path)
}

// program prepares the start of the action: where to look for it, its arguments and environment.
func (t *tape) program(s *Setup) *failure {
	name := s.Arguments[0]
	t.at(StageExec, name)
	if name == "" {
		return fail(StageLookup, name, unix.ENOENT)
	}
	for _, path := range candidates(name, s.Env) {
		t.programs = append(t.programs, t.str(path))
	}
	var err error
	if t.argv, err = syscall.SlicePtrFromStrings(s.Arguments); err == nil {
		t.envp, err = syscall.SlicePtrFromStrings(s.Env)
	}
	return fail(StageExec, name, err)
}

// candidates lists the paths a program is looked for at: a bare name by the PATH of the action, inside the root. A name
// with a slash is taken as it is, relative to the working directory.
func candidates(name string, env []string) []string {
	for i := range len(name) {
		if name[i] == '/' {
			return []string{name}
		}
	}
	var all []string
	for path, more := searchPath(env), true; more; {
		var dir string
		if dir, path, more = cut(path); dir == "" {
			dir = "."
		}
		all = append(all, dir+"/"+name)
	}
	return all
}
