package transport

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// errStranger is what doorman says to everybody it does not know.
var errStranger = errors.New("stranger")

// doorman lets in whom it knows; a greeting reads one byte and sends one.
type doorman struct {
	mu    sync.Mutex
	known map[peer.ID]bool // guarded by mu
	kind  int              // how often it still says yes before it turns who asked out; 0: for ever. guarded by mu
	out   func(peer.ID)    // called then
}

func (d *doorman) know(id peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = make(map[peer.ID]bool)
	}
	d.known[id] = true
}

func (d *doorman) Admits(id peer.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.known[id] {
		return errStranger
	}
	if d.kind > 0 {
		if d.kind--; d.kind == 0 {
			delete(d.known, id)
			d.out(id)
		}
	}
	return nil
}

func (d *doorman) Greet(conn net.Conn, id peer.ID, dialed bool) error {
	if _, err := conn.Write([]byte{'!'}); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return err
	}
	return d.Admits(id)
}

func (d *doorman) Visit(conn net.Conn, _ peer.ID) { _, _ = io.ReadFull(conn, make([]byte, 1)) }

// ended is a transport and its gate.
type ended struct {
	*Transport
	gate *doorman
	id   peer.ID
}

// opened starts a transport on loopback with no limit of rates but that of o.
func started(t testing.TB, o Options) *ended {
	t.Helper()
	identity, err := peer.Generate()
	if err != nil {
		t.Fatal(err)
	}
	gate := &doorman{}
	o.Identity, o.Gate, o.Listen = identity, gate, netip.MustParseAddrPort("127.0.0.1:0")
	end, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	healthpb.RegisterHealthServer(end.ControlServer(), healthy{})
	healthpb.RegisterHealthServer(end.BulkServer(), healthy{})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := end.Serve(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		end.Close()
		serving.Wait()
	})
	return &ended{end, gate, identity.ID()}
}

// healthy answers that all is well.
type healthy struct {
	healthpb.UnimplementedHealthServer
}

func (healthy) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// meet lets two transports know each other.
func meet(a, b *ended) {
	a.gate.know(b.id)
	b.gate.know(a.id)
	a.Learn(b.id, b.Addresses())
	b.Learn(a.id, a.Addresses())
}

// calls asks over both kinds.
func calls(ctx context.Context, from, to *ended) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	control, err := from.Control(ctx, to.id)
	if err != nil {
		return err
	}
	bulk, err := from.Bulk(ctx, to.id)
	if err != nil {
		return err
	}
	_, err = healthpb.NewHealthClient(control).Check(ctx, &healthpb.HealthCheckRequest{})
	_, err2 := healthpb.NewHealthClient(bulk).Check(ctx, &healthpb.HealthCheckRequest{})
	return errors.Join(err, err2)
}

// settled waits until claim holds, for 6000 looks of 5 ms: a machine that stands still takes none of them.
func settled(claim func() bool) bool {
	for range 6000 {
		if claim() {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// heap is the memory in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// flood sends n bad connections to a node, 64 at once: silent, of noise, cut off, of another protocol,
// and real TLS with a peer nobody knows, over all three ways in.
func flood(t *testing.T, to *ended, n int) {
	stranger := started(t, Options{})
	stranger.gate.know(to.id) // what it is told, it takes
	address := to.Addresses()[0]
	noise := make([]byte, 4096)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	turn := make(chan struct{}, 64)
	var group sync.WaitGroup
	for i := range n {
		turn <- struct{}{}
		group.Go(func() {
			defer func() { <-turn }()
			switch i % 50 {
			case 0:
				if conn, err := stranger.dialBulkAt(t.Context(), to.id, address); err == nil {
					// The listener refuses after the greeting; the connection is worth nothing.
					conn.SetReadDeadline(time.Now().Add(20 * time.Second))
					if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("a stranger's bulk connection gave %d bytes, %v", n, err)
					}
					conn.Close()
				}
			case 1:
				if conn, _, err := stranger.Visit(t.Context(), address, func(peer.ID) error { return nil }); err == nil {
					conn.Close()
				}
			default:
				conn, err := net.Dial("tcp", address.String())
				if err != nil {
					return
				}
				defer conn.Close()
				switch i % 4 {
				case 0: // silent
				case 1:
					conn.Write(noise)
				case 2:
					conn.Write(append([]byte{firstTLS, 3, 1, 15, 255}, noise...))
				case 3:
					conn.Write([]byte("\x13/multistream/1.0.0\n\x0d/tls/1.0.0\n"))
				}
			}
		})
	}
	group.Wait()
}

// TestFlood shows that 10,000 bad connections leave memory and goroutines where they were, and that a
// member comes through meanwhile.
func TestFlood(t *testing.T) {
	node, member := started(t, Options{perSecond: 1e6, burst: 1e6}), started(t, Options{perSecond: 1e6, burst: 1e6})
	meet(node, member)
	if err := calls(t.Context(), member, node); err != nil {
		t.Fatal(err)
	}
	flood(t, node, 200) // what is made once is made now
	goroutines, memory := runtime.NumGoroutine(), heap()
	const bad = 10_000
	flood(t, node, bad)
	if err := calls(t.Context(), member, node); err != nil {
		t.Errorf("after the flood a member is not served: %v", err)
	}
	node.front.mu.Lock()
	guests, from := len(node.front.guests), len(node.front.from)
	node.front.mu.Unlock()
	if !settled(func() bool {
		node.front.mu.Lock()
		defer node.front.mu.Unlock()
		return len(node.front.guests) == 0 && len(node.front.from) == 0
	}) {
		t.Errorf("%d guests of %d addresses are left", guests, from)
	}
	// Each flood starts a stranger of its own, which lives to the test's end.
	another := 60
	if !settled(func() bool { return runtime.NumGoroutine() <= goroutines+another }) {
		t.Errorf("%d goroutines before, %d after", goroutines, runtime.NumGoroutine())
	}
	if grown := heap() - memory; grown > 8<<20 {
		t.Errorf("the heap grew by %d KiB, %d bytes a bad connection", grown>>10, grown/bad)
	}
}

// TestSilence shows that strangers who connect and say nothing do not keep members out: they take their
// address's share and no more. They may stay for longer here than a loaded machine takes to make them.
func TestSilence(t *testing.T) {
	node, member := started(t, Options{perSecond: 1e6, burst: 1e6, patience: 5 * time.Minute}), started(t, Options{})
	meet(node, member)
	var silent []net.Conn
	defer func() {
		for _, c := range silent {
			c.Close()
		}
	}()
	for range guestsPerAddress - 2 { // an attacker at the same address as the member can take all of it
		c, err := net.Dial("tcp", node.Addresses()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	counted := func() int {
		node.front.mu.Lock()
		defer node.front.mu.Unlock()
		return len(node.front.guests)
	}
	if !settled(func() bool { return counted() == len(silent) }) {
		t.Fatalf("%d of %d silent connections are counted", counted(), len(silent))
	}
	if err := calls(t.Context(), member, node); err != nil {
		t.Errorf("a member is kept out: %v", err)
	}
	for range 10 { // over the share
		c, err := net.Dial("tcp", node.Addresses()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	last := silent[len(silent)-1]
	last.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection over the share: %v", err)
	}
}

// TestPatience shows that who says nothing is put out when its time is over, and counts no more.
func TestPatience(t *testing.T) {
	node := started(t, Options{patience: 100 * time.Millisecond})
	for range 20 {
		c, err := net.Dial("tcp", node.Addresses()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a silent connection: %v", err)
		}
	}
	if !settled(func() bool {
		node.front.mu.Lock()
		defer node.front.mu.Unlock()
		return len(node.front.guests) == 0 && len(node.front.from) == 0
	}) {
		t.Error("silent connections are left after their time")
	}
}

// TestOffice brings members behind one address to a node at once: of libp2p's own limits, 8 would be let in. How
// many more there may be, TestSilence shows with connections that cost less.
func TestOffice(t *testing.T) {
	node := started(t, Options{})
	var group sync.WaitGroup
	members := make([]*ended, 12)
	for i := range members {
		members[i] = started(t, Options{})
		meet(node, members[i])
	}
	for _, m := range members {
		group.Go(func() {
			if err := calls(t.Context(), m, node); err != nil {
				t.Errorf("a member of the office: %v", err)
			}
		})
	}
	group.Wait()
	if got := len(node.host.Network().Peers()); got != len(members) {
		t.Errorf("%d of %d members are connected", got, len(members))
	}
}

// TestRate shows that one address that connects again and again is slowed down.
func TestRate(t *testing.T) {
	node := started(t, Options{perSecond: 0.001, burst: 5})
	refused := make(chan error, 10)
	for range cap(refused) {
		c, err := net.Dial("tcp", node.Addresses()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			_, err := c.Read(make([]byte, 1))
			refused <- err
		}()
	}
	for range 5 {
		if err := <-refused; err == nil {
			t.Error("a connection one too many was answered")
		}
	}
	// They are judged in the order they come: when five are refused, the five before them are in.
	node.front.mu.Lock()
	defer node.front.mu.Unlock()
	if got := len(node.front.guests); got != 5 {
		t.Errorf("%d of 10 connections were let in, 5 are the burst", got)
	}
}

// FuzzFront feeds the port with anything: it must neither panic nor answer with more than TLS.
func FuzzFront(f *testing.F) {
	f.Add([]byte("\x13/multistream/1.0.0\n\x0d/tls/1.0.0\n"))
	f.Add([]byte{firstTLS, 3, 1, 0, 5, 1, 0, 0, 1, 3})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	node := started(f, Options{perSecond: 1e9, burst: 1e9})
	address := node.Addresses()[0].String()
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		conn.Write(data)
		conn.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(io.LimitReader(conn, 64<<10))
		if len(got) > 4096 {
			t.Errorf("%d bytes were answered to %x", len(got), data)
		}
	})
}
