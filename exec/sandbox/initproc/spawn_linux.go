package initproc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// spawner makes an init for every run, by forking itself: it is small and single in purpose, where the node may have a
// heap of gigabytes whose page tables every fork would copy. It ends, and takes all inits along, when the node closes its
// end of the socket, be it by dying.
type spawner struct {
	ground *Setup
	inits  []running
}

// running is one init that was forked and not waited for.
type running struct {
	id    uint32
	pid   int
	pidfd int32
}

// serve is the life of a spawner. It does not return.
func (s *Setup) serve() {
	all := ^uint64(0) // for this thread alone, the one that forks: what it forks must not run a handler of the Go runtime
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	_ = unix.Close(ReportFD) // tells the node that the ground is prepared
	sp := &spawner{ground: s}
	for {
		fds := []unix.PollFd{{Fd: SetupFD, Events: unix.POLLIN}}
		for _, r := range sp.inits {
			fds = append(fds, unix.PollFd{Fd: r.pidfd, Events: unix.POLLIN})
		}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			unix.Exit(1)
		}
		sp.collect(fds[1:])
		if fds[0].Revents != 0 {
			sp.listen()
		}
	}
}

// collect waits for the inits that have ended.
func (sp *spawner) collect(ended []unix.PollFd) {
	left := sp.inits[:0]
	for i, r := range sp.inits {
		var usage unix.Rusage
		if ended[i].Revents == 0 {
			left = append(left, r)
			continue
		}
		if pid, err := unix.Wait4(r.pid, nil, unix.WALL|unix.WNOHANG, &usage); err == nil && pid != r.pid {
			left = append(left, r)
			continue
		}
		_ = unix.Close(int(r.pidfd))
		answer(Answer{Kind: Gone, ID: r.id, UserNanos: usage.Utime.Nano(), SystemNanos: usage.Stime.Nano(), MaxRSSBytes: usage.Maxrss * 1024})
	}
	sp.inits = left
}

// listen takes one request.
func (sp *spawner) listen() {
	head := make([]byte, RequestSize)
	control := make([]byte, unix.CmsgSpace(4*4))
	n, controlled, _, _, err := unix.Recvmsg(SetupFD, head, control, unix.MSG_CMSG_CLOEXEC)
	if err == unix.EINTR {
		return
	}
	if err != nil || n <= 0 {
		unix.Exit(0)
	}
	if n < len(head) {
		readFull(head[n:])
	}
	request, err := DecodeRequest(head)
	if err != nil {
		unix.Exit(1)
	}
	if request.Kind == Kill {
		for _, r := range sp.inits {
			if r.id == request.ID {
				_ = unix.PidfdSendSignal(int(r.pidfd), unix.SIGKILL, nil, 0)
			}
		}
		return
	}
	payload := make([]byte, request.Length)
	readFull(payload)
	fds := received(control[:controlled])
	a := Answer{Kind: Launched, ID: request.ID}
	a.PID, a.Errno = sp.launch(request.ID, payload, fds)
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	answer(a)
}

func received(control []byte) []int {
	var all []int
	messages, _ := unix.ParseSocketControlMessage(control)
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		all = append(all, fds...)
	}
	return all
}

// launch forks an init. What goes wrong later is reported by that init.
func (sp *spawner) launch(id uint32, payload []byte, fds []int) (pid, errno uint32) {
	run, err := DecodeSetup(payload)
	if err != nil || len(fds) < 3 || len(run.Arguments) == 0 {
		return 0, uint32(unix.EBADMSG)
	}
	setup := *sp.ground
	setup.join(run)
	d := descriptors{stdout: fds[0], stderr: fds[1], report: fds[2]}
	if len(fds) > 3 {
		d.hold = fds[3]
	}
	t, f := setup.compile(d)
	if f != nil {
		_, _ = unix.Write(d.report, (&Report{Kind: Fault, Stage: f.stage, Errno: uint32(f.errno), Subject: f.subject}).Encode())
	}
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC)
	if setup.Flags&Loopback != 0 {
		flags |= unix.CLONE_NEWNET
	}
	if f != nil { // an init that only ends, so that there is one way for all
		flags, t.ops = 0, []op{{number: unix.SYS_EXIT_GROUP}}
	}
	r := running{id: id}
	n, forkErrno := t.fork(flags, &r.pidfd)
	if forkErrno != 0 {
		return 0, uint32(forkErrno)
	}
	r.pid = n
	sp.inits = append(sp.inits, r)
	return uint32(n), 0
}

// answer tells the node; it may be gone, and then the next request ends this process.
func answer(a Answer) {
	b := a.Encode()
	for len(b) > 0 {
		n, err := unix.Write(SetupFD, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Exit(0)
		}
		b = b[n:]
	}
}
