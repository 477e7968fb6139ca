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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

// binary builds the node once for all tests of the package.
var binary = sync.OnceValues(func() (string, error) { return Build(context.Background(), scratch) })

// scratch is where binary builds to; TestMain makes and removes it.
var scratch string

// victim tells the test binary to be a lab that is about to be killed.
const victim = "LAB_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victim); dir != "" {
		beKilled(dir)
	}
	dir, err := os.MkdirTemp("", "lab-test-")
	if err != nil {
		panic(err)
	}
	scratch = dir
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// open makes a lab with machines of those names. Without root the test is skipped, in CI it fails.
func open(t *testing.T, names ...string) *Lab {
	t.Helper()
	built, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{Binary: built})
	if err != nil && Lacking() != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	for _, name := range names {
		if _, err := l.Add(name, Machine{}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// echo answers every datagram at port 7 of the machine's address with itself, until the test ends.
func echo(t *testing.T, n *Node) {
	t.Helper()
	var socket net.PacketConn
	err := n.Do(func() (err error) {
		socket, err = net.ListenPacket("udp4", "0.0.0.0:7")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	t.Cleanup(func() { _ = socket.Close(); wait.Wait() })
	wait.Go(func() {
		buffer := make([]byte, 2048)
		for {
			size, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(buffer[:size], from)
		}
	})
}

// ping sends datagrams from one machine to the echo of another until one comes back, and says how long that one took.
func ping(t *testing.T, from *Node, to netip.Addr, limit time.Duration) (time.Duration, error) {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp4", netip.AddrPortFrom(to, 7).String())
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	var took time.Duration
	buffer, number := make([]byte, 64), 0
	_, err = Eventually(t.Context(), limit, func(context.Context) error {
		number++
		text := fmt.Sprint("ping ", number)
		sent := time.Now()
		if _, err := conn.Write([]byte(text)); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(sent.Add(300 * time.Millisecond))
		for {
			size, err := conn.Read(buffer)
			if err != nil {
				return err
			}
			if string(buffer[:size]) == text {
				took = time.Since(sent)
				return nil
			}
		}
	})
	return took, err
}

const (
	long  = 10 * time.Second // for what has to come
	short = time.Second      // for what must not
)

// reach fails the test unless datagrams go from a to b and back, or unless they do not.
func reach(t *testing.T, a, b *Node, want bool) {
	t.Helper()
	limit := long
	if !want {
		limit = short
	}
	if _, err := ping(t, a, b.Address(), limit); (err == nil) != want {
		t.Errorf("%s reaches %s: %v, want %v (%v)", a.Name, b.Name, err == nil, want, err)
	}
}

// Machines on the switch reach each other, but for what a partition, a loss in one direction, or a pulled cable forbids.
func TestNodesReachEachOther(t *testing.T) {
	l := open(t, "ana", "ben", "cai")
	ana, ben, cai := l.Node("ana"), l.Node("ben"), l.Node("cai")
	for _, n := range l.Nodes() {
		echo(t, n)
	}
	reach(t, ana, ben, true)
	must(t, l.Partition([]string{"ana"}, []string{"ben", "cai"}))
	reach(t, ana, ben, false)
	reach(t, cai, ana, false)
	reach(t, ben, cai, true)
	must(t, l.Partition([]string{"ben"})) // ana and cai are in no group
	reach(t, ana, cai, true)
	reach(t, ben, cai, false)
	must(t, l.Heal())
	reach(t, ana, ben, true)

	must(t, ana.Unplug())
	reach(t, ben, ana, false)
	must(t, ana.Plug())
	reach(t, ben, ana, true)

	old := ben.Address()
	must(t, ben.Move(netip.MustParseAddr("10.77.9.9")))
	reach(t, ana, ben, true)
	if _, err := ping(t, ana, old, short); err == nil {
		t.Error("ben answers at the address it has left")
	}
	if err := ben.Move(ana.Address()); err == nil {
		t.Error("two machines have one address")
	}
	given := ben.Address()
	must(t, ben.Move(netip.Addr{}))
	if ben.Address() == given || ben.Address() == ana.Address() {
		t.Errorf("ben moved to %s", ben.Address())
	}
	reach(t, ana, ben, true)
}

// What one machine sends to another is lost; what comes back that way is not.
func TestLossInOneDirection(t *testing.T) {
	l := open(t, "ana", "ben")
	ana, ben := l.Node("ana"), l.Node("ben")
	var at net.PacketConn
	must(t, ben.Do(func() (err error) { at, err = net.ListenPacket("udp4", ":9"); return err }))
	defer func() { _ = at.Close() }()
	var from net.PacketConn
	must(t, ana.Do(func() (err error) { from, err = net.ListenPacket("udp4", ":9"); return err }))
	defer func() { _ = from.Close() }()
	cross := func(a, b net.PacketConn, to *Node) bool {
		address := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Address(), 9))
		_, err := Eventually(t.Context(), short, func(context.Context) error {
			if _, err := a.WriteTo([]byte("x"), address); err != nil {
				return err
			}
			_ = b.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, _, err := b.ReadFrom(make([]byte, 8))
			return err
		})
		return err == nil
	}
	must(t, l.Lose("ana", "ben"))
	if cross(from, at, ben) {
		t.Error("what ana sends arrives at ben")
	}
	if !cross(at, from, ana) {
		t.Error("what ben sends does not arrive at ana")
	}
	must(t, l.Heal())
	if !cross(from, at, ben) {
		t.Error("what ana sends does not arrive at ben after the loss has ended")
	}
}

// Frames between the groups of a slow wire take their time, within a group they do not; a lossy wire loses some.
func TestSlowWire(t *testing.T) {
	l := open(t, "ana", "ben", "cai")
	ana, ben, cai := l.Node("ana"), l.Node("ben"), l.Node("cai")
	for _, n := range l.Nodes() {
		echo(t, n)
	}
	const delay = 60 * time.Millisecond
	must(t, l.Slow(Link{Delay: delay}, []string{"ana"}, []string{"ben", "cai"}))
	took, err := ping(t, ana, ben.Address(), long)
	if err != nil || took < 2*delay {
		t.Errorf("ana to ben and back: %v, %v; want at least %v", took, err, 2*delay)
	}
	crossed := l.Crossed()
	if _, err := ping(t, ben, cai.Address(), long); err != nil {
		t.Error(err)
	}
	for flow, is := range l.Crossed() {
		between := !flow.TCP && (flow.From.Addr() == ana.Address() && flow.To == netip.AddrPortFrom(ben.Address(), 7) ||
			flow.To.Addr() == ana.Address() && flow.From == netip.AddrPortFrom(ben.Address(), 7))
		if !between || is.Packets == 0 || is.Bytes < is.Packets*int64(len("ping 1")) || is != crossed[flow] || len(crossed) != 2 {
			t.Errorf("%+v crossed, %+v before: %+v, want pings between ana and ben", flow, is, crossed)
		}
	}
	must(t, l.Slow(Link{Loss: 1}, []string{"ana"}, []string{"ben", "cai"}))
	reach(t, ana, ben, true) // half of it on each of the two wires: a quarter of all frames passes one way
	must(t, l.Slow(Link{Rate: 4000}, []string{"ana"}, []string{"ben"}))
	conn, err := ana.Dial(t.Context(), "udp4", netip.AddrPortFrom(ben.Address(), 7).String())
	must(t, err)
	defer func() { _ = conn.Close() }()
	begun := time.Now()
	if _, err := conn.Write(make([]byte, 400)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(begun.Add(long))
	if _, err := conn.Read(make([]byte, 2048)); err != nil || time.Since(begun) < 400*time.Millisecond {
		t.Errorf("400 bytes over four wires of 4000 bytes a second: %v, %v", time.Since(begun), err)
	}
}

// A node runs on its machine through all that may happen to it, and what it costs is counted.
func TestNodeLives(t *testing.T) {
	l := open(t, "ana")
	ana := l.Node("ana")
	must(t, ana.Start(t.Context()))
	if err := ana.Start(t.Context()); err == nil {
		t.Error("a running node was started a second time")
	}
	status, err := ana.Status(t.Context())
	if err != nil || status.Name != "ana" || status.Pid != int64(ana.PID()) {
		t.Errorf("status: %v, %v", status, err)
	}
	if out, err := ana.Run(t.Context(), "status"); err != nil || !strings.Contains(out, "ana, up") {
		t.Errorf("status: %v\n%s", err, out)
	}
	if count, err := ana.Metrics(t.Context(), "go_goroutines "); err != nil || count < 1 {
		t.Errorf("%v goroutines, %v", count, err)
	}
	usage, err := ana.Usage()
	if err != nil || usage.CPU <= 0 || usage.Memory < 1<<20 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if peak, err := ana.Peak(); err != nil || peak < usage.Memory/2 || peak > 1<<30 {
		t.Errorf("at most %d bytes resident, now %d, %v", peak, usage.Memory, err)
	}

	must(t, ana.Sleep())
	ctx, cancel := context.WithTimeout(t.Context(), short)
	if _, err := ana.Status(ctx); err == nil {
		t.Error("a sleeping node answers")
	}
	cancel()
	must(t, ana.Wake())
	if _, err := ana.Status(t.Context()); err != nil {
		t.Errorf("after waking: %v", err)
	}

	must(t, ana.Kill())
	if _, err := ana.Status(t.Context()); err == nil {
		t.Error("a killed node answers")
	}
	must(t, ana.Start(t.Context()))
	must(t, ana.Stop())
}

// Two labs with the same names and addresses at once do not see each other.
func TestTwoLabs(t *testing.T) {
	one, two := open(t, "ana", "ben"), open(t, "ana")
	echo(t, one.Node("ana"))
	reach(t, one.Node("ben"), one.Node("ana"), true)
	if _, err := ping(t, two.Node("ana"), one.Node("ben").Address(), short); err == nil {
		t.Error("a machine of one lab reaches one of another")
	}
}

// After Close the machine is as before: no directory, no process, no namespace, no control group, also of a node that was killed.
func TestCloseLeavesNothing(t *testing.T) {
	before := namespaces(t)
	l := open(t, "ana", "ben")
	must(t, l.Node("ana").Start(t.Context()))
	must(t, l.Node("ben").Start(t.Context()))
	must(t, l.Node("ben").Kill())
	left := l.Node("ben").Groups() // at once: whatever node starts next on this machine sweeps them
	groups := slices.ContainsFunc(cgroup.Homes(), func(h cgroup.Home) bool { return h.PID == l.Node("ana").PID() })
	if groups && len(left) == 0 {
		t.Error("the control groups that a killed node left are not seen")
	}
	must(t, l.Slow(Link{Delay: time.Millisecond}, []string{"ana"}, []string{"ben"}))
	pid, dir := l.Node("ana").PID(), l.Dir()
	if during := namespaces(t); during < before+3 {
		t.Fatalf("%d network namespaces with a lab of two, %d without", during, before)
	}
	must(t, l.Close())
	gone(t, pid)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	for _, n := range l.Nodes() {
		if groups := n.Groups(); len(groups) > 0 {
			t.Errorf("control groups of %s are left: %s", n.Name, groups)
		}
	}
	_, err := Eventually(t.Context(), long, func(context.Context) error { // the kernel takes them apart by and by
		if after := namespaces(t); after > before {
			return fmt.Errorf("%d network namespaces, %d before", after, before)
		}
		return nil
	})
	must(t, err)
}

// A lab that is killed takes its nodes with it, and the next one removes its directory.
func TestKilledLab(t *testing.T) {
	parent := t.TempDir()
	open(t) // skips without root
	built, err := binary()
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victim+"="+parent, "LAB_BINARY="+built)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the node of the lab does not run: %v", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	gone(t, pid)

	left, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if len(left) != 1 {
		t.Fatalf("left after the kill: %v", left)
	}
	past := time.Now().Add(-2 * young)
	must(t, os.Chtimes(left[0], past, past))
	sweep(parent)
	if left, _ := filepath.Glob(filepath.Join(parent, "*")); len(left) != 0 {
		t.Errorf("left after the next lab: %v", left)
	}
}

// beKilled makes a lab with a running node, prints the node's pid and waits for the end.
func beKilled(dir string) {
	l, err := New(Options{Binary: os.Getenv("LAB_BINARY"), Dir: dir})
	if err == nil {
		_, err = l.Add("ana", Machine{})
	}
	if err == nil {
		err = l.Node("ana").Start(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Node("ana").PID())
	select {}
}

// The directory of a lab that lives is never swept, however old.
func TestSweepSparesTheLiving(t *testing.T) {
	parent := t.TempDir()
	dir, lock, err := claim(parent)
	must(t, err)
	past := time.Now().Add(-2 * young)
	must(t, os.Chtimes(dir, past, past))
	sweep(parent)
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	must(t, lock.Close())
}

// gone waits until a process is no more, or a zombie that nobody has to fear.
func gone(t *testing.T, pid int) {
	t.Helper()
	_, err := Eventually(t.Context(), long, func(context.Context) error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		return fmt.Errorf("process %d lives", pid)
	})
	must(t, err)
}

// namespaces counts the network namespaces in which a thread of any process is.
func namespaces(t *testing.T) int {
	t.Helper()
	seen := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", os.Getpid()))
	must(t, err)
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil {
			seen[name] = true
		}
	}
	return len(seen)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
