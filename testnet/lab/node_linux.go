package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/buildmesh/buildmesh/node/control"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// Bounds of what a node's process may take its time for.
const (
	startLimit = 60 * time.Second
	stopLimit  = 15 * time.Second
	verbLimit  = time.Minute
)

// Node is a machine of the lab and the node that at times runs on it. Its endpoint and web page stand at their default
// ports on the machine's own 127.0.0.1. Its methods may be called by several goroutines.
type Node struct {
	Name string

	lab      *Lab
	port     *port
	dir      string
	settings []string

	mu      sync.Mutex // guards what follows
	process *process
	lives   []int // the process ids it has had
}

// process is one life of a node.
type process struct {
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{} // closed when err is set
	err    error
	asleep bool // stopped by SIGSTOP; guarded by the node's mu
}

func newNode(l *Lab, name string, port *port, settings []string) *Node {
	return &Node{Name: name, lab: l, port: port, dir: filepath.Join(l.dir, name), settings: settings}
}

// Address is the machine's address now.
func (n *Node) Address() netip.Addr {
	n.lab.network.mu.Lock()
	defer n.lab.network.mu.Unlock()
	return n.port.address
}

// Dir is the node's dir.base.
func (n *Node) Dir() string { return n.dir }

// Endpoint is where this process reaches the node's Remote Execution API.
func (n *Node) Endpoint() string {
	return "unix:" + filepath.Join(n.dir, "state", "run", "buildmesh.sock")
}

// environ is what the node and its command line see: nothing of the caller's own settings.
func (n *Node) environ() []string {
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + n.lab.options.inside(n.dir), "LC_ALL=C.UTF-8",
		"BUILDMESH_DIR_BASE=" + n.lab.options.inside(n.dir), "BUILDMESH_NODE_NAME=" + n.Name, "BUILDMESH_NODE_DRAIN=2s",
	}, n.settings...)
}

// Start runs `buildmesh up` and waits until the node answers, at most 60 s.
func (n *Node) Start(ctx context.Context) error {
	p, err := n.begin()
	if err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	_, err = Eventually(ctx, startLimit, func(ctx context.Context) error {
		select {
		case <-p.ended:
			return nil
		default:
			_, err := n.Status(ctx)
			return err
		}
	})
	select {
	case <-p.ended:
		return fmt.Errorf("start %s: the node ended: %v\n%s", n.Name, p.err, n.Log())
	default:
	}
	if err != nil {
		return fmt.Errorf("start %s: %w\n%s", n.Name, err, n.Log())
	}
	return nil
}

// begin starts the process.
func (n *Node) begin() (*process, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		return nil, errors.New("it runs already")
	}
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := n.command(context.Background(), "up")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt typed at the lab is the lab's, not the nodes'
	if err := n.port.space.start(cmd); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p := &process{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() { // ends with the process, which close makes sure of
		defer close(p.ended)
		p.err = cmd.Wait()
		_ = log.Close()
	}()
	n.process, n.lives = p, append(n.lives, cmd.Process.Pid)
	return p, nil
}

// command is one of the node's command line, not yet in its namespace.
func (n *Node) command(ctx context.Context, args ...string) *exec.Cmd {
	o := &n.lab.options
	words := slices.Concat(o.Enter, []string{o.inside(o.Binary)}, args)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env, cmd.Dir = n.environ(), n.dir
	return cmd
}

// Running tells whether the node has a process; one that fell over by itself counts until Stop or Kill.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil
}

// Asleep tells whether the node's process is stopped.
func (n *Node) Asleep() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil && n.process.asleep
}

// PID is the process id of the running node, else 0.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return 0
	}
	return n.process.cmd.Process.Pid
}

// Stop asks the node to end and waits for it; after 15 s it is killed, which is an error.
func (n *Node) Stop() error {
	p := n.take()
	if p == nil {
		return fmt.Errorf("stop %s: it does not run", n.Name)
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("stop %s: it did not end within %v\n%s", n.Name, stopLimit, n.Log())
	}
	if p.err != nil {
		return fmt.Errorf("stop %s: %w\n%s", n.Name, p.err, n.Log())
	}
	return nil
}

// Kill ends the node as a power cut would, with SIGKILL.
func (n *Node) Kill() error {
	p := n.take()
	if p == nil {
		return fmt.Errorf("kill %s: it does not run", n.Name)
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	return nil
}

// take makes the node one without a process and returns the process it had.
func (n *Node) take() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.process
	n.process = nil
	return p
}

// Sleep stops the node's processes where they are, as closing a lid does; Wake lets them go on.
func (n *Node) Sleep() error { return n.suspend(true) }

// Wake ends Sleep.
func (n *Node) Wake() error { return n.suspend(false) }

func (n *Node) suspend(asleep bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return fmt.Errorf("%s does not run", n.Name)
	}
	signal := syscall.SIGCONT
	if asleep {
		signal = syscall.SIGSTOP
	}
	n.process.asleep = asleep
	return syscall.Kill(-n.process.cmd.Process.Pid, signal) // the process group Start made
}

// close ends the node if it runs.
func (n *Node) close() {
	if n.Running() {
		_ = n.Stop() // which kills what does not end
	}
}

// Log is what all lives of the node have printed, at most the last 64 KiB.
func (n *Node) Log() string {
	data, err := os.ReadFile(filepath.Join(n.dir, "log"))
	if err != nil {
		return err.Error()
	}
	if len(data) > 64<<10 {
		data = data[len(data)-64<<10:]
	}
	return string(data)
}

// Run calls a verb of the node's command line and returns what it prints, stderr included. It has a minute.
func (n *Node) Run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, verbLimit)
	defer cancel()
	return n.Output(n.command(ctx, args...))
}

// Output runs any command on the node's machine and returns what it prints, stderr included.
func (n *Node) Output(cmd *exec.Cmd) (string, error) {
	out, err := os.CreateTemp(n.lab.dir, "output-")
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Close(); _ = os.Remove(out.Name()) }()
	cmd.Stdout, cmd.Stderr = out, out // a file: a grandchild that keeps a pipe open would hold Wait
	if err := n.Begin(cmd); err != nil {
		return "", err
	}
	err = cmd.Wait()
	said, readErr := os.ReadFile(out.Name())
	return string(said), errors.Join(err, readErr)
}

// Begin starts any command, a build tool say, on the node's machine; the caller waits for it. It dies with the lab.
func (n *Node) Begin(cmd *exec.Cmd) error { return n.port.space.start(cmd) }

// Do runs f on a thread of the node's machine: connections f opens come from there. f must not hand that to goroutines.
func (n *Node) Do(f func() error) error { return n.port.space.do(f) }

// Dial connects from the node's machine to an address in numbers.
func (n *Node) Dial(ctx context.Context, protocol, address string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, protocol, address)
		return err
	})
	return conn, err
}

// Control connects to the node's control socket; the caller closes it.
func (n *Node) Control(ctx context.Context) (*control.Client, error) {
	return control.Dial(ctx, filepath.Join(n.dir, "state", "run", control.File))
}

// Status is what `status` shows, asked at the control socket: cheap enough to ask often.
func (n *Node) Status(ctx context.Context) (*controlv1.StatusResponse, error) {
	client, err := n.Control(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Status(ctx, &controlv1.StatusRequest{})
}
