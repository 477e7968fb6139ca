package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

// Options say how a lab is made.
type Options struct {
	Binary string // the buildmesh to run; Build makes one
	Dir    string // where the lab makes its directory; empty: /var/tmp, because nodes want a disk
	Seed   int64  // of the loss on slow wires

	// Enter is put before the nodes' commands: a program that gives them another root, say, and becomes what it is told to
	// run. Inside is then what Binary and paths below Dir are called there.
	Enter  []string
	Inside func(path string) string
}

// inside is what the nodes call a path.
func (o Options) inside(path string) string {
	if o.Inside == nil {
		return path
	}
	return o.Inside(path)
}

// Lab is a switch and the nodes plugged into it. Its methods may be called by several goroutines.
type Lab struct {
	options Options
	dir     string
	lock    *os.File // held while the lab lives; tells sweep
	network *network
	closing func() error // Close, once

	mu    sync.Mutex // guards nodes and order
	nodes map[string]*Node
	order []string
}

// Lacking tells what a lab needs and this user or machine does not have, or nil.
func Lacking() error {
	if os.Geteuid() != 0 {
		return errors.New("the laboratory makes network namespaces and therefore runs as root only")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("the laboratory needs the program ip: apt-get install iproute2")
	}
	return nil
}

// New makes an empty lab and sweeps what a killed one has left.
func New(options Options) (*Lab, error) {
	if err := Lacking(); err != nil {
		return nil, err
	}
	if options.Dir == "" {
		options.Dir = "/var/tmp"
	}
	sweep(options.Dir)
	cgroup.Sweep()
	dir, lock, err := claim(options.Dir)
	if err != nil {
		return nil, err
	}
	l := &Lab{options: options, dir: dir, lock: lock, nodes: map[string]*Node{}}
	l.closing = sync.OnceValue(l.close)
	if l.network, err = newNetwork(options.Seed); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Build compiles the node into dir and returns the binary's path. It takes the module this package stands in.
func Build(ctx context.Context, dir string) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	binary := filepath.Join(dir, "buildmesh")
	cmd := exec.CommandContext(ctx, "/bin/sh", "-ec",
		`go generate ./exec/sandbox/embedded; CGO_ENABLED=0 go build -ldflags '-X main.version=lab' -o "$0" ./cmd/buildmesh`, binary)
	cmd.Dir = filepath.Join(filepath.Dir(file), "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the node: %w\n%s", err, out)
	}
	return binary, nil
}

// Machine says what a node's machine is like.
type Machine struct {
	Address  netip.Addr // in Network; the zero value: the next free one
	Settings []string   // further settings, like BUILDMESH_STORE_MAX_SIZE=1GiB
	Disk     int64      // bytes of a disk of its own, in memory; 0: it shares the lab's
}

// Add makes a machine and plugs it into the switch; no node runs on it yet.
func (l *Lab) Add(name string, machine Machine) (*Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name == "" || strings.ContainsAny(name, "/ \t\n") || len(name) > 40 {
		return nil, fmt.Errorf("%q is no name for a node", name)
	}
	if l.nodes[name] != nil {
		return nil, fmt.Errorf("node %s exists already", name)
	}
	address := machine.Address
	if !address.IsValid() {
		address = l.network.free()
	}
	port, err := l.network.plug(address)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", name, err)
	}
	n := newNode(l, name, port, machine.Settings)
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	if machine.Disk > 0 {
		if err := n.mount(machine.Disk); err != nil {
			return nil, err
		}
	}
	l.nodes[name] = n
	l.order = append(l.order, name)
	return n, nil
}

// Node is the node of that name, or nil.
func (l *Lab) Node(name string) *Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[name]
}

// Nodes are all nodes, in the order they were added.
func (l *Lab) Nodes() []*Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*Node
	for _, name := range l.order {
		out = append(out, l.nodes[name])
	}
	return out
}

// Running are the nodes whose process runs, stopped by SIGSTOP or not.
func (l *Lab) Running() []*Node {
	return slices.DeleteFunc(l.Nodes(), func(n *Node) bool { return !n.Running() })
}

// Dir is the lab's directory; it is removed by Close.
func (l *Lab) Dir() string { return l.dir }

// Close ends every node, at most 20 s together, removes the network and the directory. A second call does nothing.
func (l *Lab) Close() error { return l.closing() }

func (l *Lab) close() error {
	var errs []error
	var wait sync.WaitGroup
	for _, n := range l.Nodes() {
		wait.Go(n.close)
	}
	wait.Wait()
	if l.network != nil {
		l.network.close()
	}
	unmount(l.dir)
	cgroup.Sweep()
	errs = append(errs, os.RemoveAll(l.dir), l.lock.Close())
	return errors.Join(errs...)
}

// Eventually calls check about every 50 ms until it returns nil, and returns how long that took, or after limit an
// error with check's last.
func Eventually(ctx context.Context, limit time.Duration, check func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	begun := time.Now()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return time.Since(begun), nil
		}
		if ctx.Err() == nil || last == nil { // what a cancelled check says is of no interest
			last = err
		}
		select {
		case <-ctx.Done():
			return time.Since(begun), fmt.Errorf("not within %v: %w", limit, last)
		case <-ticker.C:
		}
	}
}
