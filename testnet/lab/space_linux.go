package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// space is a network namespace without a name. One thread lives in it and does what do is given; the
// namespace ends with that thread and with the processes started on it.
type space struct {
	tid   int
	calls chan func()
	ended chan struct{}

	mu     sync.RWMutex // guards closed against a send on calls
	closed bool
}

var errSpaceClosed = errors.New("the lab is closed")

// newSpace makes a namespace in which only the loopback device is up, without IPv6.
func newSpace() (*space, error) {
	s := &space{calls: make(chan func()), ended: make(chan struct{})}
	opened := make(chan error)
	go s.serve(opened)
	if err := <-opened; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	err := s.do(func() error {
		// IPv6 would speak unasked (router solicitations, multicast reports) and be counted as the node's bytes.
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.close()
		return nil, err
	}
	if err := s.ip("link set lo up"); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// serve owns the thread of the namespace. It never unlocks it, so that the runtime ends the thread with the goroutine.
func (s *space) serve(opened chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread of a process is never ended by the runtime. While this goroutine holds it, another gets another.
		done := make(chan struct{})
		go func() { defer close(done); s.serve(opened) }()
		<-done
		runtime.UnlockOSThread()
		return
	}
	defer close(s.ended)
	err := unix.Unshare(unix.CLONE_NEWNET)
	s.tid = unix.Gettid()
	opened <- err
	if err != nil {
		return
	}
	for call := range s.calls {
		call()
	}
}

// do runs f on the thread of the namespace: sockets f opens and processes it starts are inside. One at a time; f must
// not start goroutines that open sockets, they would be outside.
func (s *space) do(f func() error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errSpaceClosed
	}
	done := make(chan error)
	s.calls <- func() { done <- f() }
	return <-done
}

// start starts a process inside. It is killed when the lab's process dies, whatever it died of.
func (s *space) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL // bound to the thread that starts it, which lives as long as the space
	return s.do(cmd.Start)
}

// ip runs commands of the program ip inside, in one process.
func (s *space) ip(commands ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := s.start(cmd); err != nil {
		return fmt.Errorf("ip: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("ip %s: %s", strings.Join(commands, "; "), strings.TrimSpace(said.String()))
	}
	return nil
}

// path names the namespace for the program ip.
func (s *space) path() string { return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), s.tid) }

// close ends the thread. What was started inside has to have ended.
func (s *space) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.calls)
		<-s.ended
	}
}
