package initproc

import (
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// busyRetries and busyPause bound how long a program that is still open for writing is tried again. Another thread of
// the node that forks while this file is being written keeps it open for a moment.
const (
	busyRetries = 1000
	busyPause   = 2 * time.Millisecond
)

// start finds the program and forks and execs it in a session of its own.
func (s *Setup) start() (int, *failure) {
	path, f := lookup(s.Arguments[0], s.Env)
	if f != nil {
		return 0, f
	}
	attr := &syscall.ProcAttr{Env: s.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	for try := 0; ; try++ {
		pid, err := syscall.ForkExec(path, s.Arguments, attr)
		if err == nil {
			return pid, nil
		}
		if err != unix.ETXTBSY || try >= busyRetries {
			return 0, fail(StageExec, path, err)
		}
		time.Sleep(busyPause)
	}
}

// lookup resolves a bare program name by the PATH of the action, inside the root. A name with a slash is taken as it is,
// relative to the working directory.
func lookup(name string, env []string) (string, *failure) {
	for i := range len(name) {
		if name[i] == '/' {
			return name, fail(StageLookup, name, executable(name))
		}
	}
	if name == "" {
		return "", fail(StageLookup, name, unix.ENOENT)
	}
	var result error = unix.ENOENT
	for path := searchPath(env); ; {
		dir, rest, more := cut(path)
		if dir == "" {
			dir = "."
		}
		err := executable(dir + "/" + name)
		if err == nil {
			return dir + "/" + name, nil
		}
		if err == unix.EACCES {
			result = err
		}
		if !more {
			return "", fail(StageLookup, name, result)
		}
		path = rest
	}
}

// defaultPath is searched when the action's environment has no PATH.
const defaultPath = "/usr/local/bin:/usr/bin:/bin"

func searchPath(env []string) string {
	for _, e := range env {
		if len(e) > 5 && e[:5] == "PATH=" {
			return e[5:]
		}
	}
	return defaultPath
}

func cut(path string) (dir, rest string, more bool) {
	for i := range len(path) {
		if path[i] == ':' {
			return path[:i], path[i+1:], true
		}
	}
	return path, "", false
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Access(path, unix.X_OK)
}

// reap waits for all children until the action itself has ended, and gives its wait status.
func reap(action int) unix.WaitStatus {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == action {
			return status
		}
	}
}

// killRounds bounds how often killRest looks for children that came up in between.
const killRounds = 10000

// killRest kills everything that is left of the action. As the first process of a pid namespace, init kills all there is
// in it. Without one it must spare the rest of the machine: it kills its children, becomes the parent of theirs, and so
// on until there are none. A process whose parent has died is a child of init, because init is a reaper of orphans.
func killRest() {
	if unix.Getpid() == 1 {
		_ = unix.Kill(-1, unix.SIGKILL)
		return
	}
	empty := 0
	for range killRounds {
		children := ownChildren()
		if len(children) == 0 {
			// Another thread may wait for a process while its children are handed from one thread of init to another, past
			// the one that is being listed. What is handed over stays, so a second look finds it.
			if empty++; empty == 2 {
				return
			}
			continue
		}
		empty = 0
		for _, pid := range children {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for _, pid := range children {
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}
}

// ownChildren lists the children of all threads of this process.
func ownChildren() []int {
	dir, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	buffer := make([]byte, 64<<10)
	n, err := unix.ReadDirent(dir, buffer)
	if err != nil {
		return nil
	}
	_, _, threads := unix.ParseDirent(buffer[:n], -1, nil)
	var children []int
	for _, thread := range threads {
		fd, err := unix.Open("/proc/self/task/"+thread+"/children", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		n, _ := unix.Read(fd, buffer)
		_ = unix.Close(fd)
		children = append(children, numbers(buffer[:max(n, 0)])...)
	}
	return children
}

// numbers reads decimal numbers separated by spaces; only those above 1, since what is read is going to be killed. A last
// one that is not followed by a space may be cut short, and is left for the next time.
func numbers(b []byte) []int {
	var all []int
	value := 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9' && value < 1<<24:
			value = value*10 + int(c-'0')
		case c == ' ':
			if value > 1 {
				all = append(all, value)
			}
			value = 0
		}
	}
	return all
}

// usage is what all reaped children used.
func usage() Usage {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &r)
	return Usage{
		UserNanos: r.Utime.Nano(), SystemNanos: r.Stime.Nano(), MaxRSSBytes: r.Maxrss * 1024,
		ReadBlocks: r.Inblock, WriteBlocks: r.Oublock, MinorFaults: r.Minflt, MajorFaults: r.Majflt,
		Voluntary: r.Nvcsw, InvoluntarySwap: r.Nivcsw,
	}
}

// watch sums the memory of all processes where no control group does it.
type watch struct{ exceeded atomic.Bool }

// watchPause is the time between two sums. A process can overshoot in between by what it can touch in this time.
const watchPause = 20 * time.Millisecond

// memory kills everything when the processes of the pid namespace have more than limit bytes resident, counting shared
// pages once for every process that has them mapped (so it errs to the strict side, by the size of shared libraries).
// It ends with the process.
func (w *watch) memory(_ int, limit int64) {
	buffer := make([]byte, 8192)
	for {
		if residentBytes(buffer) > limit {
			w.exceeded.Store(true)
			killRest()
		}
		time.Sleep(watchPause)
	}
}

func residentBytes(buffer []byte) int64 {
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(dir)
	var pages int64
	for {
		n, err := unix.ReadDirent(dir, buffer)
		if err != nil || n <= 0 {
			return pages * int64(unix.Getpagesize())
		}
		_, _, names := unix.ParseDirent(buffer[:n], -1, nil)
		for _, name := range names {
			if name[0] >= '1' && name[0] <= '9' && name != "1" {
				pages += residentPages("/proc/" + name + "/statm")
			}
		}
	}
}

// residentPages reads the second number of a statm file.
func residentPages(path string) int64 {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var b [128]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return 0
	}
	field, value := 0, int64(0)
	for _, c := range b[:n] {
		switch {
		case c == ' ' && field == 1:
			return value
		case c == ' ':
			field++
		case field == 1 && c >= '0' && c <= '9':
			value = value*10 + int64(c-'0')
		}
	}
	return 0
}
