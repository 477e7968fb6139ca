package transporttest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
)

// ErrBarred is why a Gate does not admit a peer.
var ErrBarred = errors.New("barred")

// Gate lets everybody in but whom it bars. Its greeting is one byte each way, its visit an echo.
type Gate struct {
	mu     sync.Mutex
	barred map[peer.ID]bool // guarded by mu
}

// Bar lets a peer in no more, or again. It closes no connection.
func (g *Gate) Bar(id peer.ID, barred bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.barred == nil {
		g.barred = make(map[peer.ID]bool)
	}
	g.barred[id] = barred
}

// Admits implements transport.Gate.
func (g *Gate) Admits(id peer.ID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.barred[id] {
		return ErrBarred
	}
	return nil
}

// Greet implements transport.Gate.
func (g *Gate) Greet(conn net.Conn, id peer.ID, dialed bool) error {
	if err := g.Admits(id); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{'!'}); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// Visit implements transport.Gate.
func (g *Gate) Visit(conn net.Conn, _ peer.ID) { _, _ = io.Copy(conn, io.LimitReader(conn, 1024)) }

// Node is a transport and who it is.
type Node struct {
	*transport.Transport
	Identity *peer.Identity
	Gate     *Gate
}

// ID is the node's peer id.
func (n *Node) ID() peer.ID { return n.Identity.ID() }

// Start runs n transports on loopback until the test ends; each has learned the addresses of the others.
// register, if not nil, is called for each before it serves.
func Start(t testing.TB, n int, register func(i int, control, bulk grpc.ServiceRegistrar)) []*Node {
	t.Helper()
	nodes := make([]*Node, n)
	for i := range nodes {
		identity, err := peer.Generate()
		if err != nil {
			t.Fatal(err)
		}
		gate := &Gate{}
		end, err := transport.Open(transport.Options{Identity: identity, Gate: gate, Listen: netip.MustParseAddrPort("127.0.0.1:0")})
		if err != nil {
			t.Fatal(err)
		}
		if register != nil {
			register(i, end.ControlServer(), end.BulkServer())
		}
		nodes[i] = &Node{end, identity, gate}
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := end.Serve(); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		t.Cleanup(func() {
			if err := end.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			serving.Wait()
		})
	}
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.Learn(b.ID(), b.Addresses())
			}
		}
	}
	return nodes
}
