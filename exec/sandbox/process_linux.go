package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/buildmesh/buildmesh/exec/sandbox/initproc"
	"golang.org/x/sys/unix"
)

// process is the init of one run, as the node sees it.
type process interface {
	// PID is its process id outside.
	PID() int
	// Begin lets the action start, once the process is in its control group.
	Begin() error
	// Kill ends it and all of the action with it. Wait tells when that has happened.
	Kill()
	// Wait returns when nothing of the action is left, with the processor time init knows of.
	Wait() (user, system time.Duration, err error)
}

// direct is an init that is the node's own child (tier C), or bubblewrap's (tier B).
type direct struct {
	cmd   *exec.Cmd
	setup *os.File // write end; closing it ends init
	run   *initproc.Setup
}

func (d *direct) PID() int { return d.cmd.Process.Pid }

func (d *direct) Begin() error {
	_, err := d.setup.Write(d.run.Encode())
	return err
}

// Kill closes the pipe: nobody but init knows which processes are the action's.
func (d *direct) Kill() { _ = d.setup.Close() }

func (d *direct) Wait() (user, system time.Duration, err error) {
	_ = d.setup.Close()
	err = d.cmd.Wait()
	return d.cmd.ProcessState.UserTime(), d.cmd.ProcessState.SystemTime(), err
}

// startDirect starts a program that is an init, or becomes one. What cmd inherits as further files comes after the two
// pipes.
func (b *Box) startDirect(cmd *exec.Cmd, prepared, run *initproc.Setup) (process, *os.File, error) {
	setupRead, setupWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make setup pipe: %w", err)
	}
	defer setupRead.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		_ = setupWrite.Close()
		return nil, nil, fmt.Errorf("make report pipe: %w", err)
	}
	defer reportWrite.Close()
	d := &direct{cmd: cmd, setup: setupWrite, run: run}
	d.cmd.ExtraFiles = append([]*os.File{setupRead, reportWrite}, cmd.ExtraFiles...)
	if err := d.cmd.Start(); err != nil {
		_ = setupWrite.Close()
		_ = reportRead.Close()
		return nil, nil, fmt.Errorf("start init: %w", err)
	}
	if _, err := setupWrite.Write(prepared.Encode()); err != nil {
		d.Kill()
		_, _, _ = d.Wait()
		_ = reportRead.Close()
		return nil, nil, fmt.Errorf("prepare init: %w", err)
	}
	return d, reportRead, nil
}

// setupCapabilities are what init needs of the new user namespace, until it drops them. Overlay keeps them, too, for what
// it does on behalf of the action: it works in a directory that nobody may enter.
var setupCapabilities = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_SETUID, unix.CAP_SETGID,
	unix.CAP_SETPCAP, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_SETFCAP, // the last to map root in a namespace of a run
}

// command is the process to start: an init, or a spawner in the namespaces its inits share.
func (b *Box) command(g ground) *exec.Cmd {
	base := &exec.Cmd{Path: b.init.path, Args: []string{initproc.Name}, Env: []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=12MiB"}}
	if b.tier == TierC {
		base.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return base
	}
	uid, gid, other := b.Owner()
	base.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: g.uid, HostID: uid, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: g.gid, HostID: gid, Size: 1}},
		GidMappingsEnableSetgroups: other,
		AmbientCaps:                setupCapabilities,
		Setsid:                     g.background,
	}
	return base
}
