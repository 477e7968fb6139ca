//go:build unix

package clients

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// casd is a running buildbox-casd: BuildStream's own server, with storage, action cache, execution and assets.
type casd struct {
	cmd  *exec.Cmd
	done chan error
	log  *lockedBuffer
}

// StartCasd starts one with an empty store, which runs as many actions at once as a node here does. It is ended by stop,
// and when the test ends.
func (p Place) StartCasd(t testing.TB) (server Server, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp(p.Dir, "casd-")
	if err != nil {
		t.Fatal(err)
	}
	server = Server{Address: freePort(t)}
	c := &casd{log: &lockedBuffer{}, done: make(chan error, 1)}
	c.cmd = p.Command(context.Background(), dir, "buildbox-casd", "--bind="+server.Address, "--buildbox-run=/usr/bin/buildbox-run",
		"--jobs=2", "--cache-failures=false", p.Inside(dir)+"/store")
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- c.cmd.Wait() }()
	stop = sync.OnceFunc(func() { c.stop(t) })
	t.Cleanup(stop)
	Eventually(t, 30*time.Second, "buildbox-casd listens", func() error {
		select {
		case err := <-c.done:
			t.Fatalf("buildbox-casd ended: %v\n%s", err, c.log)
		default:
		}
		conn, err := net.DialTimeout("tcp", server.Address, time.Second)
		if err != nil {
			return fmt.Errorf("%w; it said %s", err, c.log)
		}
		return conn.Close()
	})
	return server, stop
}

func (c *casd) stop(t testing.TB) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
		t.Error("buildbox-casd did not end within 30 s of SIGTERM")
	}
}
