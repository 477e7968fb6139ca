package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
	"golang.org/x/sys/unix"
)

// maxSpawners bounds the spawners that are kept, one for each ground. Each holds some 4 MiB.
const maxSpawners = 4

// errSpawnerGone means that a spawner has ended without being asked to: the machine ran out of memory, or it was killed.
var errSpawnerGone = errors.New("spawner is gone")

// spawners keeps a spawner for each ground in use.
type spawners struct {
	start func(ground) (*spawner, error)

	mu     sync.Mutex // guards what follows
	latest []*spawner // most recently used first
}

// enter gives a run to the spawner of this ground, a new one if there is none that lives. It is not idle from then on, so that
// nobody who needs another one has it ended before it is asked to launch.
func (s *spawners) enter(g ground, l *launched) (*spawner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, sp := range s.latest {
		if sp.ground == g {
			s.latest = append(s.latest[:i], s.latest[i+1:]...)
			if !sp.isGone() {
				s.latest = append([]*spawner{sp}, s.latest...)
				sp.enter(l)
				return sp, nil
			}
			sp.close()
			break
		}
	}
	sp, err := s.start(g)
	if err != nil {
		return nil, err
	}
	s.latest = append([]*spawner{sp}, s.latest...)
	sp.enter(l)
	for i := len(s.latest) - 1; i >= maxSpawners; i-- {
		if old := s.latest[i]; old.isIdle() {
			s.latest = append(s.latest[:i], s.latest[i+1:]...)
			old.close()
		}
	}
	return sp, nil
}

// close ends all spawners. Runs must have ended.
func (s *spawners) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.latest {
		sp.close()
	}
	s.latest = nil
}

// spawner is a process that forks the inits of one ground.
type spawner struct {
	ground ground
	cmd    *exec.Cmd
	conn   *net.UnixConn
	gone   chan struct{} // closed when the connection has ended

	sending sync.Mutex // requests are not to be mixed

	mu   sync.Mutex // guards what follows
	runs map[uint32]*launched
	next uint32
}

// startSpawner starts a spawner and waits until it has prepared its ground.
func (b *Box) startSpawner(g ground) (*spawner, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make spawner socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "spawner"), os.NewFile(uintptr(pair[1]), "spawner")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("make spawner socket: %w", err)
	}
	faultRead, faultWrite, err := os.Pipe()
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("make report pipe: %w", err)
	}
	defer faultRead.Close()
	sp := &spawner{ground: g, cmd: b.command(g), conn: conn.(*net.UnixConn), gone: make(chan struct{}), runs: map[uint32]*launched{}}
	sp.cmd.ExtraFiles = []*os.File{theirs, faultWrite}
	err = sp.cmd.Start()
	_ = faultWrite.Close()
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start spawner: %w", err)
	}
	go sp.listen()
	if err := sp.prepare(b.prepare(g), faultRead); err != nil {
		sp.close()
		return nil, err
	}
	if g.background {
		if err := lower(sp.cmd.Process.Pid); err != nil {
			sp.close()
			return nil, err
		}
	}
	return sp, nil
}

// prepare sends the ground, and waits until the spawner has closed its end of the pipe: silently if all is well.
func (sp *spawner) prepare(setup *initproc.Setup, faults *os.File) error {
	if _, err := sp.conn.Write(setup.Encode()); err != nil {
		return fmt.Errorf("prepare spawner: %w", err)
	}
	_ = faults.SetReadDeadline(time.Now().Add(setupTimeout))
	said, err := io.ReadAll(io.LimitReader(faults, 1<<16))
	if err != nil {
		return fmt.Errorf("prepare spawner: %w", err)
	}
	if report, n, err := initproc.DecodeReport(said); n > 0 || err != nil {
		return fmt.Errorf("prepare spawner: %v %s: %w", report.Stage, report.Subject, errors.Join(err, syscall.Errno(report.Errno)))
	}
	return nil
}

// listen hands the spawner's answers to the runs, until it is gone.
func (sp *spawner) listen() {
	defer close(sp.gone)
	buffer := make([]byte, initproc.AnswerSize)
	for {
		if _, err := io.ReadFull(sp.conn, buffer); err != nil {
			return
		}
		answer, err := initproc.DecodeAnswer(buffer)
		if err != nil {
			_ = sp.conn.Close()
			return
		}
		sp.mu.Lock()
		run := sp.runs[answer.ID]
		if answer.Kind == initproc.Gone || answer.Errno != 0 {
			delete(sp.runs, answer.ID)
		}
		sp.mu.Unlock()
		if run != nil {
			run.answers <- answer
		}
	}
}

func (sp *spawner) isGone() bool {
	select {
	case <-sp.gone:
		return true
	default:
		return false
	}
}

// enter gives it a run.
func (sp *spawner) enter(l *launched) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.next++
	l.spawner, l.id = sp, sp.next
	sp.runs[l.id] = l
}

func (sp *spawner) isIdle() bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return len(sp.runs) == 0
}

// close ends the spawner, and all inits it has.
func (sp *spawner) close() {
	_ = sp.conn.Close()
	<-sp.gone
	_ = sp.cmd.Process.Kill()
	_ = sp.cmd.Wait()
}

// send writes one request, with descriptors.
func (sp *spawner) send(r initproc.Request, payload []byte, files ...*os.File) error {
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	message := append(r.Encode(), payload...)
	sp.sending.Lock()
	defer sp.sending.Unlock()
	n, _, err := sp.conn.WriteMsgUnix(message, rights, nil)
	if err == nil && n < len(message) {
		_, err = sp.conn.Write(message[n:])
	}
	if err != nil {
		return fmt.Errorf("%w: %v", errSpawnerGone, err)
	}
	return nil
}

// launched is an init that a spawner has forked.
type launched struct {
	spawner *spawner
	id      uint32
	pid     int
	hold    *os.File             // write end, nil if the action starts at once
	answers chan initproc.Answer // room for both
}

// launch forks an init for a run. It reports on the pipe given back.
func (b *Box) launch(g ground, setup *initproc.Setup, place *scratch) (process, *os.File, error) {
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make report pipe: %w", err)
	}
	defer reportWrite.Close()
	files := []*os.File{place.stdout, place.stderr, reportWrite}
	l := &launched{answers: make(chan initproc.Answer, 2)}
	if b.grouped() {
		holdRead, holdWrite, err := os.Pipe()
		if err != nil {
			_ = reportRead.Close()
			return nil, nil, fmt.Errorf("make hold pipe: %w", err)
		}
		defer holdRead.Close()
		l.hold, files = holdWrite, append(files, holdRead)
	}
	payload := setup.Encode()
	if err = l.start(b, g, payload, files); errors.Is(err, errSpawnerGone) {
		err = l.start(b, g, payload, files)
	}
	if err != nil {
		_ = reportRead.Close()
		l.release()
		return nil, nil, fmt.Errorf("launch init: %w", err)
	}
	return l, reportRead, nil
}

func (l *launched) start(b *Box, g ground, payload []byte, files []*os.File) error {
	sp, err := b.spawners.enter(g, l)
	if err != nil {
		return err
	}
	if err := sp.send(initproc.Request{Kind: initproc.Launch, ID: l.id, Length: uint32(len(payload))}, payload, files...); err != nil {
		return err
	}
	select {
	case a := <-l.answers:
		if a.Errno != 0 {
			return syscall.Errno(a.Errno)
		}
		l.pid = int(a.PID)
		return nil
	case <-sp.gone:
		return errSpawnerGone
	}
}

func (l *launched) PID() int { return l.pid }

func (l *launched) Begin() error {
	if l.hold == nil {
		return nil
	}
	_, err := l.hold.Write([]byte{1})
	l.release()
	return err
}

func (l *launched) release() {
	if l.hold != nil {
		_ = l.hold.Close()
		l.hold = nil
	}
}

// Kill asks the spawner, which knows whether the process id still is this one's.
func (l *launched) Kill() {
	_ = l.spawner.send(initproc.Request{Kind: initproc.Kill, ID: l.id}, nil)
}

// Wait returns when the whole pid namespace is dead: the kernel tells of init's end no earlier. If the spawner was killed,
// the kernel kills its inits, and they are waited for by their process id.
func (l *launched) Wait() (user, system time.Duration, err error) {
	l.release()
	select {
	case a := <-l.answers:
		return time.Duration(a.UserNanos), time.Duration(a.SystemNanos), nil
	case <-l.spawner.gone:
	}
	select { // it may have said so before
	case a := <-l.answers:
		return time.Duration(a.UserNanos), time.Duration(a.SystemNanos), nil
	default:
	}
	for end := time.Now().Add(orphanWait); time.Now().Before(end) && unix.Kill(l.pid, 0) == nil; {
		time.Sleep(time.Millisecond)
	}
	return 0, 0, errSpawnerGone
}

// orphanWait bounds how long the inits of a killed spawner are waited for.
const orphanWait = 5 * time.Second
