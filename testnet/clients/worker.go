//go:build unix

package clients

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Worker is one running buildbox-worker, a stock bot of the Remote Workers API.
type Worker struct {
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan error
}

// StartWorker starts a bot that lends this place to a node, by one of the root's programs buildbox-run-*, and reports
// properties like "ISA=x86-64".
func (p Place) StartWorker(t testing.TB, node *Node, id, runner string, properties ...string) *Worker {
	t.Helper()
	args := []string{"--instance=bst", "--remote=http://" + node.Address(), "--buildbox-run=/usr/bin/" + runner,
		"--runner-arg=--disable-localcas", // there is no buildbox-casd beside it
		"--log-level=debug"}
	for _, property := range properties {
		args = append(args, "--platform", property)
	}
	w := &Worker{cmd: p.Command(context.Background(), p.Dir, "buildbox-worker", append(args, id)...), log: &lockedBuffer{}, done: make(chan error, 1)}
	w.cmd.Env = append(os.Environ(), "HOME=/root")
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with the programs it starts
	w.cmd.WaitDelay = 5 * time.Second
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { w.done <- w.cmd.Wait() }()
	t.Cleanup(func() {
		w.Kill()
		if t.Failed() {
			t.Logf("worker %s said:\n%s", id, w.Tail())
		}
	})
	return w
}

// Kill ends the bot and what it runs as a power cut would, with SIGKILL, and waits for it.
func (w *Worker) Kill() {
	if w.cmd == nil {
		return
	}
	_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL)
	<-w.done
	w.cmd = nil
}

// Tail is the end of what it printed.
func (w *Worker) Tail() string {
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}
