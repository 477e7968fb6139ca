package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ltransport "github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// What the first byte of a connection says of the rest.
const (
	firstTLS         = 0x16 // a TLS handshake record
	firstMultistream = 0x13 // the length of libp2p's "/multistream/1.0.0\n"
)

// acceptPause is the wait after the system refused to accept, as when it has no descriptors left.
const acceptPause = 50 * time.Millisecond

// front is the one port of a node: it accepts, counts who has proven nothing yet, and sends each
// connection where its first byte says. (libp2p's own demultiplexer stands still for 5 s when 64
// strangers connect and say nothing.)
type front struct {
	listener net.Listener
	manager  network.ResourceManager
	onTLS    func(*guest)
	lane     chan *guest   // to libp2p
	patience time.Duration // how long a connection may prove nothing

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	guests map[*guest]bool    // guarded by mu: connections that have proven nothing yet
	from   map[netip.Addr]int // guarded by mu: how many guests an address has
}

// guest is an incoming connection. Until prove it counts as a stranger's and is closed when its time
// is over, whatever it waits for.
type guest struct {
	manet.Conn
	front *front
	from  netip.Addr
	scope network.ConnManagementScope
	timer *time.Timer // guarded by front.mu
	first []byte      // read to find out the kind; Read gives it again
	once  sync.Once
	ended chan struct{} // closed by Close
	end   sync.Once
}

// openFront makes the front of a listener; serve must be called.
func openFront(l net.Listener, m network.ResourceManager, onTLS func(*guest)) *front {
	f := &front{listener: l, manager: m, onTLS: onTLS, lane: make(chan *guest), patience: greetTimeout, guests: make(map[*guest]bool), from: make(map[netip.Addr]int)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// serve accepts until close.
func (f *front) serve() error {
	for {
		conn, err := f.listener.Accept()
		switch {
		case f.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			select {
			case <-f.ctx.Done():
				return nil
			case <-time.After(acceptPause):
			}
			continue
		}
		if g := f.admit(conn); g != nil {
			f.running.Go(func() { f.sort(g) })
		}
	}
}

// admit counts a connection; nil when there are too many, and it is closed.
func (f *front) admit(conn net.Conn) *guest {
	wrapped, err := manet.WrapNetConn(conn)
	if err != nil {
		conn.Close()
		return nil
	}
	scope, err := f.manager.OpenConnection(network.DirInbound, true, wrapped.RemoteMultiaddr())
	if err != nil {
		conn.Close()
		return nil
	}
	g := &guest{Conn: wrapped, front: f, from: block(conn.RemoteAddr()), scope: scope, ended: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.guests) >= mostGuests || f.from[g.from] >= guestsPerAddress || f.ctx.Err() != nil {
		scope.Done()
		conn.Close()
		return nil
	}
	f.guests[g] = true
	f.from[g.from]++
	g.timer = time.AfterFunc(f.patience, func() { g.Close() })
	return g
}

// block is what counts as one address: an IPv4 address, an IPv6 /64.
func block(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip
	}
	return prefix.Addr()
}

// prove ends being a stranger: the connection is counted and timed no more.
func (g *guest) prove() {
	g.once.Do(func() {
		f := g.front
		f.mu.Lock()
		defer f.mu.Unlock()
		g.timer.Stop()
		delete(f.guests, g)
		if f.from[g.from]--; f.from[g.from] == 0 {
			delete(f.from, g.from)
		}
	})
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.prove()
	g.end.Do(func() { close(g.ended) })
	return g.Conn.Close()
}

// Read implements net.Conn.
func (g *guest) Read(p []byte) (int, error) {
	if len(g.first) > 0 && len(p) > 0 {
		n := copy(p, g.first)
		g.first = g.first[n:]
		return n, nil
	}
	return g.Conn.Read(p)
}

// sort reads the first byte and hands the connection on.
func (f *front) sort(g *guest) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(g.Conn, first); err != nil {
		g.scope.Done()
		g.Close()
		return
	}
	g.first = first
	switch first[0] {
	case firstTLS:
		defer g.scope.Done()
		f.onTLS(g)
	case firstMultistream:
		select {
		case f.lane <- g:
		case <-g.ended: // its time is over, or that of the front, and libp2p did not come for it
			g.scope.Done()
		}
	default:
		g.scope.Done()
		g.Close()
	}
}

// close ends serve and every guest, and waits for them.
func (f *front) close() error {
	f.cancel()
	err := f.listener.Close()
	f.mu.Lock()
	guests := make([]*guest, 0, len(f.guests))
	for g := range f.guests {
		guests = append(guests, g)
	}
	f.mu.Unlock()
	for _, g := range guests {
		g.Close()
	}
	f.running.Wait()
	return err
}

// tcpTransport is libp2p's TCP transport, which dials by itself and is given what the front accepts.
type tcpTransport struct {
	*tcp.TcpTransport
	upgrader ltransport.Upgrader
	front    *front
}

// Listen implements transport.Transport.
func (t *tcpTransport) Listen(a multiaddr.Multiaddr) (ltransport.Listener, error) {
	return t.upgrader.UpgradeGatedMaListener(t, &lane{front: t.front, addr: a, closed: make(chan struct{})}), nil
}

// lane is the front as a listener of libp2p.
type lane struct {
	front  *front
	addr   multiaddr.Multiaddr
	closed chan struct{}
	once   sync.Once
}

// Accept implements transport.GatedMaListener.
func (l *lane) Accept() (manet.Conn, network.ConnManagementScope, error) {
	select {
	case g := <-l.front.lane:
		return g, g.scope, nil
	case <-l.closed:
		return nil, nil, ltransport.ErrListenerClosed
	case <-l.front.ctx.Done():
		return nil, nil, ltransport.ErrListenerClosed
	}
}

// Close implements transport.GatedMaListener.
func (l *lane) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Multiaddr implements transport.GatedMaListener.
func (l *lane) Multiaddr() multiaddr.Multiaddr { return l.addr }

// Addr implements transport.GatedMaListener.
func (l *lane) Addr() net.Addr { return l.front.listener.Addr() }
