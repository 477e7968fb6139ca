package initproc

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The descriptors a sandbox's init is started with, besides standard input, output and error of the action.
const (
	SetupFD  = 3
	ReportFD = 4
)

// Name is argv[0] of a node's own binary when it is to be init (see exec/sandbox, Main).
const Name = "buildmesh-init"

// failure is an error with the stage and the subject it belongs to.
type failure struct {
	stage   Stage
	errno   syscall.Errno
	subject string
}

// fail makes a failure of err, or nil of nil.
func fail(stage Stage, subject string, err error) *failure {
	if err == nil {
		return nil
	}
	errno, ok := err.(syscall.Errno)
	if !ok {
		errno = unix.EINVAL
	}
	return &failure{stage: stage, errno: errno, subject: subject}
}

// Run does everything and never returns. It must be called on the main goroutine, before anything else happens in the
// process.
func Run() {
	runtime.LockOSThread()
	unix.CloseOnExec(SetupFD)
	unix.CloseOnExec(ReportFD)
	setup, f := readSetup()
	if f == nil {
		f = setup.prepare()
	}
	if f == nil && setup.Mode == Namespaces {
		setup.serve()
	}
	if f == nil {
		var run *Setup
		if run, f = readSetup(); f == nil {
			setup.join(run)
			f = setup.build()
		}
	}
	if f != nil {
		send(&Report{Kind: Fault, Stage: f.stage, Errno: uint32(f.errno), Subject: f.subject})
		unix.Exit(1)
	}
	go exitWithParent()
	pid, f := setup.start()
	if f != nil {
		send(&Report{Kind: Fault, Stage: f.stage, Errno: uint32(f.errno), Subject: f.subject})
		unix.Exit(1)
	}
	send(&Report{Kind: Started, Time: now()})
	w := &watch{}
	if setup.Flags&WatchMemory != 0 {
		go w.memory(pid, setup.MemoryBytes)
	}
	status := reap(pid)
	if unix.Getpid() != 1 {
		killRest()
	}
	send(&Report{Kind: Ended, Status: uint32(status), Memory: w.exceeded.Load(), Time: now(), Usage: usage()})
	unix.Exit(0)
}

// prepare does what can be done before the run is known.
func (s *Setup) prepare() *failure {
	unix.Umask(0o022)
	if s.Mode == Namespaces {
		return s.prepareTemplate()
	}
	adjustKillOrder()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fail(StagePrivileges, "reaper of orphans", err)
	}
	return s.becomeGuest()
}

// build completes the world for the action.
func (s *Setup) build() *failure {
	if s.Mode != Prebuilt { // there, they are inherited
		if f := s.openOutputs(); f != nil {
			return f
		}
	}
	if s.Mode == Confined {
		if f := s.confine(); f != nil {
			return f
		}
	}
	if f := s.makeDirectories(); f != nil {
		return f
	}
	if f := s.limit(); f != nil {
		return f
	}
	if f := dropPrivileges(); f != nil {
		return f
	}
	return installFilter()
}

// openOutputs makes the two files the action's standard output and error. They were made by the parent.
func (s *Setup) openOutputs() *failure {
	if err := unix.Chdir(s.Base); err != nil {
		return fail(StageOutput, s.Base, err)
	}
	for i, path := range [...]string{s.Stdout, s.Stderr} {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fail(StageOutput, path, err)
		}
		if err := unix.Dup3(fd, i+1, 0); err != nil {
			return fail(StageOutput, path, err)
		}
		_ = unix.Close(fd)
	}
	return nil
}

// readSetup reads one Setup; the pipe stays open for exitWithParent.
func readSetup() (*Setup, *failure) {
	header := make([]byte, headerSize)
	readFull(header)
	n, err := setupLength(header)
	if err != nil {
		return nil, fail(StageSetup, "header", unix.EBADMSG)
	}
	all := make([]byte, n)
	copy(all, header)
	readFull(all[headerSize:])
	s, err := DecodeSetup(all)
	if err != nil {
		return nil, fail(StageSetup, "body", unix.EBADMSG)
	}
	return s, nil
}

// readFull fills b from the setup pipe, or ends this process when that ends before.
func readFull(b []byte) {
	for len(b) > 0 {
		n, err := syscall.Read(SetupFD, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			unix.Exit(1) // the parent is gone, or gave up: nobody is there to be told
		}
		b = b[n:]
	}
}

// exitWithParent ends init, and so the whole pid namespace, when the parent's end of the setup pipe is closed.
func exitWithParent() {
	var b [1]byte
	for {
		n, err := syscall.Read(SetupFD, b[:])
		if n == 0 && err != unix.EINTR {
			killRest()
			unix.Exit(1)
		}
	}
}

// send writes one report; the parent may be gone, and then nobody needs it.
func send(r *Report) { _, _ = syscall.Write(ReportFD, r.Encode()) }

func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
	return ts.Nano()
}

// adjustKillOrder makes the kernel choose actions before the owner's programs when the machine runs out of memory.
func adjustKillOrder() {
	fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte("600"))
	_ = unix.Close(fd)
}

// makeDirectories makes the directories that must exist before the action starts and goes to its working directory.
func (s *Setup) makeDirectories() *failure {
	for _, d := range s.Directories {
		if f := makeAll(d); f != nil {
			return f
		}
	}
	return fail(StageDirectory, s.Directory, unix.Chdir(s.Directory))
}

// makeAll makes a directory with its parents; what exists already is left alone.
func makeAll(path string) *failure {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		if err := unix.Mkdir(path[:i], 0o755); err != nil && err != unix.EEXIST {
			return fail(StageDirectory, path[:i], err)
		}
	}
	return nil
}
