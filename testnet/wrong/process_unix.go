//go:build unix

package wrong

import (
	"os/exec"
	"syscall"
	"time"
)

// isolate puts the command into a process group of its own, which is killed as a whole unless
// aloneDies is set.
func isolate(cmd *exec.Cmd, aloneDies bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !aloneDies {
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	}
}

// reap kills what the command left in its group; with wait it waits for that to end by itself.
func reap(cmd *exec.Cmd, wait bool) {
	for wait && syscall.Kill(-cmd.Process.Pid, 0) == nil {
		time.Sleep(50 * time.Millisecond) // children of others cannot be waited for
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nothing is left when it fails
}
