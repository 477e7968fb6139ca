package gossip

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

const (
	// maxStreams bounds the streams taken at once; memberlist itself serves 128 exchanges of state at once.
	maxStreams = 128
	// maxStreamsFrom bounds those from one address, behind which a whole office may stand.
	maxStreamsFrom = 64
	// streamBase and streamMember bound what one stream may bring: a state of the whole roster, and as much
	// again for what the other knows more.
	streamBase   = 1 << 20
	streamMember = 2 << 10
)

// errTooMuch ends a stream that brings more than a mesh can be large.
var errTooMuch = errors.New("more gossip state than this mesh can have")

// gate is a transport that takes a bounded number of streams, each of bounded size. It needs no key: it
// stands before memberlist looks at what comes.
type gate struct {
	memberlist.NodeAwareTransport
	members func() int // known now

	out  chan net.Conn
	stop chan struct{}
	pump sync.WaitGroup
	once sync.Once

	mu    sync.Mutex // guards the two below
	total int
	from  map[netip.Addr]int

	turned atomic.Int64 // streams turned away
}

// newGate stands before inner until Shutdown.
func newGate(inner memberlist.NodeAwareTransport, members func() int) *gate {
	g := &gate{NodeAwareTransport: inner, members: members, out: make(chan net.Conn),
		stop: make(chan struct{}), from: make(map[netip.Addr]int)}
	g.pump.Go(g.run)
	return g
}

// StreamCh gives the streams that were let in.
func (g *gate) StreamCh() <-chan net.Conn { return g.out }

// Shutdown ends the inner transport, which may still hand over streams meanwhile, then the pump.
func (g *gate) Shutdown() error {
	err := g.NodeAwareTransport.Shutdown()
	g.once.Do(func() { close(g.stop) })
	g.pump.Wait()
	return err
}

// run lets streams in or turns them away.
func (g *gate) run() {
	for {
		select {
		case conn := <-g.NodeAwareTransport.StreamCh():
			admitted, ok := g.admit(conn)
			if !ok {
				g.turned.Add(1)
				conn.Close()
				continue
			}
			select {
			case g.out <- admitted:
			case <-g.stop:
				admitted.Close()
			}
		case <-g.stop:
			return
		}
	}
}

// admit counts a stream in, if there is room.
func (g *gate) admit(conn net.Conn) (net.Conn, bool) {
	var host netip.Addr
	if at, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		host = at.Addr()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= maxStreams || g.from[host] >= maxStreamsFrom {
		return nil, false
	}
	g.total++
	g.from[host]++
	return &boundConn{Conn: conn, left: int64(streamBase + streamMember*g.members()), release: sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.total--
		if g.from[host]--; g.from[host] == 0 {
			delete(g.from, host)
		}
	})}, true
}

// boundConn reads a bounded number of bytes and gives its place back when closed. One goroutine reads it.
type boundConn struct {
	net.Conn
	left    int64
	release func()
}

func (c *boundConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooMuch
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

func (c *boundConn) Close() error {
	c.release()
	return c.Conn.Close()
}
