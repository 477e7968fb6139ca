package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/control"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// What a node of a testnet may take its time for.
const (
	testnetStart = time.Minute
	testnetStop  = 20 * time.Second
	testnetPoll  = 50 * time.Millisecond
)

// testnetNode is one node of a testnet: its configuration file, and a process of this program while it runs.
type testnetNode struct {
	name    string
	base    string // everything it keeps
	file    string // its configuration
	log     string // what it prints
	grpc    string
	web     string
	environ []string

	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended; err is set before
	err     error
}

// newTestnetNode makes the configuration of a node that lends so many cores.
func newTestnetNode(dir, name string, cores int, environ []string) (*testnetNode, error) {
	n := &testnetNode{name: name, base: filepath.Join(dir, name), file: filepath.Join(dir, name+".toml"), log: filepath.Join(dir, name+".log")}
	// The caller's own settings are for the caller's own node.
	n.environ = slices.DeleteFunc(slices.Clone(environ), func(pair string) bool {
		return strings.HasPrefix(pair, config.EnvPrefix)
	})
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	n.grpc, n.web = ports[0], ports[1]
	text := fmt.Sprintf(`[dir]
base = %q

[node]
name = %q
drain = "1s"

[listen]
grpc = %q
web = %q
mesh = %q

[store]
max_size = "1GiB"

[exec]
cores = %d
`, n.base, name, n.grpc, n.web, ports[2], cores)
	return n, os.WriteFile(n.file, []byte(text), 0o600)
}

// freePorts finds ports of 127.0.0.1 that nobody listens on now.
func freePorts(count int) ([]string, error) {
	var out []string
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close() // until all are found, so that they differ
		out = append(out, listener.Addr().String())
	}
	return out, nil
}

// start runs `buildmesh up` as a process of its own and waits until it answers.
func (n *testnetNode) start(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own by then
	cmd := exec.Command(program, "--config", n.file, "up")
	cmd.Env, cmd.Stdout, cmd.Stderr = n.environ, log, log
	dieTogether(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.name, err)
	}
	n.process, n.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) { // ends with the process, which stop and kill wait for
		defer close(ended)
		n.err = cmd.Wait()
	}(n.ended)
	return n.answers(ctx)
}

// answers waits until the node does.
func (n *testnetNode) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, testnetStart)
	defer cancel()
	ticker := time.NewTicker(testnetPoll)
	defer ticker.Stop()
	for {
		if _, err := n.verb(ctx, "status"); err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-n.ended:
			said, _ := os.ReadFile(n.log)
			return fmt.Errorf("node %s ended: %v\n%s", n.name, n.err, said)
		case <-ctx.Done():
			return fmt.Errorf("node %s does not answer; see %s", n.name, n.log)
		}
	}
}

// verb runs another verb of the command line for this node and returns what it prints.
func (n *testnetNode) verb(ctx context.Context, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	status := run(append([]string{"--config", n.file}, args...), verbContext{ctx: ctx, out: &out, errOut: &errOut, environ: n.environ})
	if status != statusDone {
		return out.String(), fmt.Errorf("%s on node %s: %s", args[0], n.name, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// sees tells how this node sees every other member it knows: states by name.
func (n *testnetNode) sees(ctx context.Context) (map[string]string, error) {
	client, err := control.Dial(ctx, filepath.Join(n.base, "state", "run", control.File))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	answer, err := client.Peers.Peers(ctx, &controlv1.PeersRequest{})
	if err != nil {
		return nil, plain(err)
	}
	seen := make(map[string]string)
	for _, p := range answer.Peers {
		seen[p.Name] = p.State
	}
	return seen, nil
}

// stop asks the process to end and waits for it; one that does not is killed.
func (n *testnetNode) stop() {
	if n.process == nil {
		return
	}
	if n.process.Process.Signal(os.Interrupt) == nil { // there is no such signal on Windows
		timer := time.NewTimer(testnetStop)
		defer timer.Stop()
		select {
		case <-n.ended:
		case <-timer.C:
		}
	}
	n.kill()
}

// kill ends the process as a power cut does.
func (n *testnetNode) kill() {
	if err := n.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return
	}
	<-n.ended
	n.process = nil
}
