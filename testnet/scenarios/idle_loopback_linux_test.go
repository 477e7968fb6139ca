package scenarios

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

var office = flag.Int("office", 50, "nodes of the mesh that BenchmarkIdleOffice measures, 2 to 50")

// officeBegins is how long the nodes of an office may take to start, join and see each other.
const officeBegins = 4 * time.Minute

// BenchmarkIdleOffice measures what a node costs that has nothing to do, in an office of 50: as BenchmarkIdleMesh does,
// but with the nodes of `buildmesh testnet up` on the loopback of one network namespace, where there is no limit of
// neighbours. There nothing but the nodes speaks, so that its counter, shared by their number, is what a node sends and
// what it receives, all headers included. Beacons are not among it: loopback does not multicast, and without them a node
// spends a packet every 30 s and member less. A mesh that has just begun costs more for a minute. Run it once:
//
//	go test ./testnet/scenarios -run '^$' -bench IdleOffice -benchtime 1x -office 50 -calm 90s
func BenchmarkIdleOffice(b *testing.B) {
	if err := lab.Lacking(); err != nil {
		b.Skip(err)
	}
	built, err := programs()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		inNamespace(b, built.node, func(pids []int) { measureUsage(b, func() []lab.Usage { return sharedUsages(b, pids) }) })
	}
}

// inNamespace runs a mesh of processes in a network namespace with nothing but loopback, and f once all see each other.
func inNamespace(b *testing.B, binary string, f func(pids []int)) {
	ctx, cancel := context.WithCancel(b.Context())
	cmd := exec.CommandContext(ctx, "sh", "-c", `ip link set lo up && exec "$0" testnet up --dir "$1" -n "$2"`, binary, b.TempDir(), fmt.Sprint(*office))
	var said spoken
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, 30*time.Second
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { // it ends its nodes before it ends
		cancel()
		<-ended
	}()
	begun := regexp.MustCompile(`a mesh of \d+ after ([0-9.]+) s: all see each other`)
	for limit := time.Now().Add(officeBegins); ; {
		if after := begun.FindStringSubmatch(said.String()); after != nil {
			seconds, _ := strconv.ParseFloat(after[1], 64)
			b.ReportMetric(seconds, "begin-s")
			break
		}
		if time.Now().After(limit) {
			b.Fatalf("no mesh of %d within %v: %s", *office, officeBegins, said.String())
		}
		if err := pass(b.Context(), 100*time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
	pids, err := children(cmd.Process.Pid)
	if err != nil || len(pids) != *office {
		b.Fatalf("%d of %d nodes run: %v", len(pids), *office, err)
	}
	f(pids)
}

// spoken is what a process says.
type spoken struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (s *spoken) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *spoken) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// children are the processes that a process has started and that have not ended.
func children(pid int) ([]int, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			return nil, err
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			out = append(out, child)
		}
	}
	return out, nil
}

// sharedUsages are what processes of one network namespace have cost so far, each with its share of what went over
// loopback.
func sharedUsages(b *testing.B, pids []int) []lab.Usage {
	b.Helper()
	var out []lab.Usage
	for _, pid := range pids {
		u, err := lab.UsageOf(pid, "lo")
		if err != nil {
			b.Fatal(err)
		}
		u.Sent, u.Received = u.Sent/int64(len(pids)), u.Received/int64(len(pids))
		out = append(out, u)
	}
	return out
}
