//go:build linux || darwin

package sandbox

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processGroup is the body of a run whose processes are told by their group. What leaves the group by a session of its own
// (setsid) is not found again: one reason why this is for the owner's own actions only.
type processGroup struct{ cmd *exec.Cmd }

// startGroup starts cmd as the leader of a new process group.
func startGroup(cmd *exec.Cmd) (*processGroup, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &processGroup{cmd: cmd}, nil
}

// Wait waits for the leader. That it failed is the action's affair.
func (g *processGroup) Wait() error {
	err := g.cmd.Wait()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return nil
	}
	return err
}

// Kill kills the group. Its number is taken as long as one process of it is left, so nobody else is hit.
func (g *processGroup) Kill() { _ = unix.Kill(-g.cmd.Process.Pid, unix.SIGKILL) }

// End kills until the kernel knows no such group any more: a process may have been about to fork when it was hit. A group of
// nothing but the dead, whom launchd has not fetched yet, is refused there with EPERM.
func (g *processGroup) End() (ending, error) {
	for range endTries {
		if err := unix.Kill(-g.cmd.Process.Pid, unix.SIGKILL); err != nil {
			return g.ending(), nil
		}
		time.Sleep(endPause)
	}
	return ending{}, fmt.Errorf("kill process group %d: something is still left", g.cmd.Process.Pid)
}

func (g *processGroup) ending() ending {
	state := g.cmd.ProcessState
	end := ending{exitCode: state.ExitCode(), usage: Usage{User: state.UserTime(), System: state.SystemTime()}}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		end.signal = int(status.Signal())
	}
	if used, ok := state.SysUsage().(*syscall.Rusage); ok {
		end.usage.MaxRSS = residentBytes(used.Maxrss, runtime.GOOS)
		end.usage.MinorFaults, end.usage.MajorFaults = used.Minflt, used.Majflt
		end.usage.VoluntarySwitches, end.usage.InvoluntarySwitches = used.Nvcsw, used.Nivcsw
		end.usage.ReadBytes, end.usage.WriteBytes = used.Inblock*512, used.Oublock*512
	}
	return end
}

// residentBytes makes bytes of ru_maxrss: macOS counts bytes, the others KiB (getrusage(2) of each).
func residentBytes(maxrss int64, system string) int64 {
	if system == "darwin" {
		return maxrss
	}
	return maxrss * 1024
}
