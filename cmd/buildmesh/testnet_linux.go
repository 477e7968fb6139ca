package main

import (
	"os/exec"
	"syscall"
)

// dieTogether lets the process be killed when this one dies, whatever of. The kernel means the thread that starts it:
// the caller is locked to one that lasts.
func dieTogether(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
