//go:build unix

package clients

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Node is one running `buildmesh up` on loopback, with a directory of its own.
type Node struct {
	Endpoint string // grpc://127.0.0.1:PORT
	Web      string // http://127.0.0.1:PORT

	t     testing.TB
	place Place
	base  string // its directory, as seen from outside
	bin   string // the binary, as seen inside
	env   []string

	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan error
}

// lockedBuffer collects what a process prints while others read it.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// StartNode builds the node once per place, starts it with an empty store and waits until it is healthy.
// settings are further environment variables, like BUILDMESH_STORE_MAX_SIZE=1GiB.
func (p Place) StartNode(t testing.TB, settings ...string) *Node {
	t.Helper()
	bin := filepath.Join(p.Dir, "buildmesh")
	if _, err := os.Stat(bin); err != nil {
		build := exec.Command("/bin/sh", "-ec", `make -s shim; CGO_ENABLED=0 go build -o "$0" ./cmd/buildmesh`, bin)
		build.Dir = filepath.Join(p.kit.here, "..", "..")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the node: %v\n%s", err, out)
		}
	}
	base, err := os.MkdirTemp(p.Dir, "node-")
	if err != nil {
		t.Fatal(err)
	}
	grpc, web := freePort(t), freePort(t)
	node := &Node{
		Endpoint: "grpc://" + grpc, Web: "http://" + web,
		t: t, place: p, base: base, bin: p.Inside(bin),
		env: append([]string{
			"BUILDMESH_DIR_BASE=" + p.Inside(base),
			"BUILDMESH_LISTEN_GRPC=" + grpc,
			"BUILDMESH_LISTEN_WEB=" + web,
			"BUILDMESH_LISTEN_MESH=127.0.0.1:0",
		}, settings...),
		log: &lockedBuffer{},
	}
	node.Start()
	t.Cleanup(func() {
		node.Stop()
		if t.Failed() {
			t.Logf("the node said:\n%s", node.log.String())
		}
	})
	return node
}

// freePort finds a loopback port that nobody listens on, below those that the kernel gives to outgoing connections: one
// of them could take it before the node does.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000)))
		if err == nil {
			_ = listener.Close()
			return listener.Addr().String()
		}
	}
	t.Fatal("a hundred ports were all taken")
	return ""
}

// Start runs the node's process and waits until it is healthy, at most 30 s.
func (n *Node) Start() {
	n.t.Helper()
	n.cmd = n.place.Command(context.Background(), n.base, n.bin, "up")
	n.cmd.Env = append(os.Environ(), n.env...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }(n.cmd, n.done)
	Eventually(n.t, 30*time.Second, "the node answers /healthz with 200", func() error {
		select {
		case err := <-n.done:
			n.t.Fatalf("the node ended: %v\n%s", err, n.log.String())
		default:
		}
		reply, err := http.Get(n.Web + "/healthz")
		if err != nil {
			return err
		}
		_ = reply.Body.Close()
		if reply.StatusCode != http.StatusOK {
			return fmt.Errorf("/healthz: %s", reply.Status)
		}
		return nil
	})
}

// Stop asks the node to end and waits for it, at most 60 s.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

// Kill ends the node as a power cut would, with SIGKILL.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

func (n *Node) end(signal syscall.Signal) {
	n.t.Helper()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(signal)
	select {
	case <-n.done:
	case <-time.After(time.Minute):
		_ = n.cmd.Process.Kill()
		n.t.Errorf("the node did not end within a minute of %v", signal)
		<-n.done
	}
	n.cmd = nil
}

// Address is the endpoint as host:port.
func (n *Node) Address() string { return strings.TrimPrefix(n.Endpoint, "grpc://") }

// BuildStream is the endpoint as BuildStream uses it.
func (n *Node) BuildStream() Server { return Server{Address: n.Address(), Instance: "bst"} }

// PID is the node's process id.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Run calls another verb of the node's command line and returns what it prints.
func (n *Node) Run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := n.place.Command(ctx, n.base, n.bin, args...)
	cmd.Env = append(os.Environ(), n.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Log is what the node has printed so far.
func (n *Node) Log() string { return n.log.String() }

// Metric sums the samples of one metric whose line contains all of labels, from /metrics.
func (n *Node) Metric(name string, labels ...string) float64 {
	n.t.Helper()
	reply, err := http.Get(n.Web + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	var text bytes.Buffer
	if _, err := text.ReadFrom(reply.Body); err != nil {
		n.t.Fatal(err)
	}
	return sumMetric(text.String(), name, labels)
}

func sumMetric(text, name string, labels []string) float64 {
	sum := 0.0
lines:
	for line := range strings.Lines(text) {
		sample, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		if !found {
			sample, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
		if base, _, _ := strings.Cut(sample, "{"); base != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(sample, label) {
				continue lines
			}
		}
		var number float64
		if _, err := fmt.Sscan(value, &number); err == nil {
			sum += number
		}
	}
	return sum
}

// Eventually calls check every 50 ms until it returns nil, and fails the test with its last error after limit.
// It is for what another process does; time within a process is tested with synctest.
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		<-ticker.C
	}
}
