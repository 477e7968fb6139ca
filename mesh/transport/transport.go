package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ltransport "github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	"github.com/buildmesh/buildmesh/mesh/buffer"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ErrClosed means that the Transport has been closed.
var ErrClosed = errors.New("transport is closed")

// Options say how a Transport is made.
type Options struct {
	Identity *peer.Identity
	Gate     Gate
	Listen   netip.AddrPort // control, bulk and visits, TCP; port 0: any
	QUIC     netip.AddrPort // control over UDP, for peers far away; the zero value: none

	perSecond float64       // new connections a second and address; 0: newPerSecond
	burst     int           // 0: newBurst
	patience  time.Duration // with strangers; 0: greetTimeout
}

// Transport is one node's end of the connections of the mesh. It is safe for concurrent use.
type Transport struct {
	gate     Gate
	host     host.Host
	identity *libp2ptls.Identity
	front    *front
	listen   netip.AddrPort

	controlServer, bulkServer *grpc.Server
	controlQueue, bulkQueue   *queue

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	open    opened
	traffic counter
	buffers buffer.Pool

	mu       sync.Mutex
	controls map[peer.ID]*grpc.ClientConn // guarded by mu; nil after Close
	bulks    map[peer.ID]*grpc.ClientConn // guarded by mu; nil after Close
}

// Open listens. Register services on ControlServer and BulkServer, then call Serve; Close must be
// called in any case.
func Open(o Options) (*Transport, error) {
	// libp2p would write to stderr by itself what its errors say too.
	gologshim.SetDefaultHandler(slog.DiscardHandler)
	t := &Transport{gate: o.Gate, controls: make(map[peer.ID]*grpc.ClientConn), bulks: make(map[peer.ID]*grpc.ClientConn)}
	key, err := crypto.UnmarshalEd25519PrivateKey(o.Identity.Private())
	if err != nil {
		return nil, fmt.Errorf("open transport: %w", err)
	}
	if t.identity, err = libp2ptls.NewIdentity(key); err != nil {
		return nil, fmt.Errorf("open transport: %w", err)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if err := t.openHost(o, key); err != nil {
		t.cancel()
		return nil, fmt.Errorf("open transport: %w", err)
	}
	t.controlQueue, t.bulkQueue = newQueue(net.TCPAddrFromAddrPort(t.listen)), newQueue(net.TCPAddrFromAddrPort(t.listen))
	t.controlServer = grpc.NewServer(append(guarded(o.Gate), grpc.MaxRecvMsgSize(MaxMessage), enforcement, grpc.StatsHandler(&t.traffic))...)
	t.bulkServer = grpc.NewServer(append(guarded(o.Gate), grpc.MaxRecvMsgSize(MaxMessage), enforcement, grpc.StatsHandler(&t.traffic),
		grpc.ForceServerCodecV2(newCodec(&t.buffers)), experimental.BufferPool(&t.buffers),
		grpc.MaxConcurrentStreams(bulkStreams), grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(2*window),
		grpc.ReadBufferSize(unbuffered), grpc.WriteBufferSize(Chunk))...)
	t.host.SetStreamHandler(controlProtocol, t.accepted)
	t.registerReach()
	return t, nil
}

// openHost makes the libp2p host and the listener beside it on the same port.
func (t *Transport) openHost(o Options, key crypto.PrivKey) error {
	if o.perSecond == 0 {
		o.perSecond, o.burst = newPerSecond, newBurst
	}
	manager, err := resources(rates(o.perSecond, o.burst))
	if err != nil {
		return err
	}
	conns, err := connections()
	if err != nil {
		return errors.Join(err, manager.Close())
	}
	protocol := "tcp"
	if o.Listen.Addr().Is4() {
		protocol = "tcp4" // else 0.0.0.0 becomes [::], and no IPv4 address would be told to others
	}
	listener, err := net.Listen(protocol, o.Listen.String())
	if err != nil {
		return errors.Join(err, manager.Close(), conns.Close())
	}
	t.front = openFront(listener, manager, t.serveTLS)
	if o.patience > 0 {
		t.front.patience = o.patience
	}
	bound, err := manet.FromNetAddr(listener.Addr())
	if err != nil {
		return errors.Join(err, t.front.close(), manager.Close(), conns.Close())
	}
	t.listen, _ = fromMulti(bound)
	options := []libp2p.Option{
		libp2p.Identity(key), libp2p.ListenAddrs(bound), libp2p.UserAgent("buildmesh"),
		libp2p.Transport(func(u ltransport.Upgrader, m network.ResourceManager) (*tcpTransport, error) {
			inner, err := tcp.NewTCPTransport(u, m, nil, tcp.DisableReuseport())
			return &tcpTransport{inner, u, t.front}, err
		}),
		libp2p.Security(securityProtocol, newSecure(o.Gate)), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ConnectionGater(gater{o.Gate}), libp2p.ResourceManager(manager), libp2p.ConnectionManager(conns),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.Ping(false),
		libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(greetTimeout)),
	}
	if o.QUIC.IsValid() {
		udp := multiaddr.StringCast(fmt.Sprintf("/ip%s/%s/udp/%d/quic-v1", version(o.QUIC.Addr()), o.QUIC.Addr(), o.QUIC.Port()))
		options = append(options, libp2p.Transport(libp2pquic.NewTransport), libp2p.ListenAddrs(udp))
	}
	if t.host, err = libp2p.New(options...); err != nil {
		return errors.Join(err, t.front.close())
	}
	t.host.Network().Notify(&network.NotifyBundle{ConnectedF: gater{o.Gate}.turnedOut})
	return nil
}

// version is the digit of the IP version.
func version(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// netAddr is a multiaddress for gRPC's logs.
func netAddr(a multiaddr.Multiaddr) net.Addr {
	if n, err := manet.ToNetAddr(a); err == nil {
		return n
	}
	return &net.TCPAddr{}
}

// enforcement allows the keepalives that find half-open connections during a call.
var enforcement = grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second})

// ControlServer is where services for small calls are registered, before Serve.
func (t *Transport) ControlServer() grpc.ServiceRegistrar { return t.controlServer }

// BulkServer is where services that move content are registered, before Serve.
func (t *Transport) BulkServer() grpc.ServiceRegistrar { return t.bulkServer }

// Host is the libp2p host, for protocols of their own such as kad-dht; whoever connects to it was let in
// by the Gate.
func (t *Transport) Host() host.Host { return t.host }

// Serve answers until Close and returns nil then. Peers that come before it wait.
func (t *Transport) Serve() error {
	failed := make(chan error, 3)
	t.running.Go(func() { failed <- t.front.serve() })
	for _, s := range []struct {
		server *grpc.Server
		queue  *queue
	}{{t.controlServer, t.controlQueue}, {t.bulkServer, t.bulkQueue}} {
		t.running.Go(func() { failed <- s.server.Serve(s.queue) })
	}
	err := errors.Join(<-failed, <-failed, <-failed)
	if t.ctx.Err() != nil {
		return nil
	}
	return err
}

// Close ends everything at once. Calls after the first do nothing.
func (t *Transport) Close() error {
	t.mu.Lock()
	clients := slices.Concat(values(t.controls), values(t.bulks))
	t.controls, t.bulks = nil, nil
	t.mu.Unlock()
	if t.ctx.Err() != nil {
		return nil
	}
	t.cancel()
	for _, c := range clients {
		c.Close()
	}
	t.controlQueue.Close()
	t.bulkQueue.Close()
	err := errors.Join(t.front.listener.Close(), t.host.Close())
	t.open.close(peer.ID{})
	t.controlServer.Stop()
	t.bulkServer.Stop()
	_ = t.front.close() // its listener is closed already
	t.running.Wait()
	return err
}

// values are the values of a map.
func values(m map[peer.ID]*grpc.ClientConn) []*grpc.ClientConn {
	out := make([]*grpc.ClientConn, 0, len(m))
	for _, c := range m {
		out = append(out, c)
	}
	return out
}

// client is the gRPC client of a peer in one of the two maps, made when it is first asked for.
func (t *Transport) client(id peer.ID, in map[peer.ID]*grpc.ClientConn, dial func(context.Context, peer.ID) (net.Conn, error)) (grpc.ClientConnInterface, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.controls == nil {
		return nil, ErrClosed
	}
	if c := in[id]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+id.String(),
		grpc.WithTransportCredentials(proven{}), grpc.WithStatsHandler(&t.traffic),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, id) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.ForceCodecV2(newCodec(&t.buffers))),
		experimental.WithBufferPool(&t.buffers),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(2*window),
		grpc.WithReadBufferSize(unbuffered), grpc.WithWriteBufferSize(Chunk),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: greetTimeout,
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}),
		grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", id.Short(), err)
	}
	in[id] = c
	return c, nil
}

// Learn replaces the addresses at which a peer is tried. Open connections stay.
func (t *Transport) Learn(id peer.ID, addresses []netip.AddrPort) {
	to := ToLibp2p(id)
	known := make([]multiaddr.Multiaddr, 0, len(addresses))
	for _, a := range addresses {
		if m, err := toMulti(a); err == nil {
			known = append(known, m)
		}
	}
	store := t.host.Peerstore()
	store.ClearAddrs(to)
	store.AddAddrs(to, known, peerstore.PermanentAddrTTL)
	t.forgive(id) // a new address deserves a try at once
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, clients := range []map[peer.ID]*grpc.ClientConn{t.controls, t.bulks} {
		// A client that could not connect would answer the next call with its old failure.
		if c := clients[id]; c != nil && c.GetState() == connectivity.TransientFailure {
			delete(clients, id)
			c.Close()
		}
	}
}

// forgive makes libp2p dial a peer at once that it could not reach a moment ago.
func (t *Transport) forgive(id peer.ID) {
	if s, ok := t.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(ToLibp2p(id))
	}
}

// Forget drops a peer and what is known of it.
func (t *Transport) Forget(id peer.ID) {
	t.Drop(id)
	t.mu.Lock()
	clients := []*grpc.ClientConn{t.controls[id], t.bulks[id]}
	delete(t.controls, id)
	delete(t.bulks, id)
	t.mu.Unlock()
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
	t.host.Peerstore().ClearAddrs(ToLibp2p(id))
	t.host.Peerstore().RemovePeer(ToLibp2p(id))
}

// Drop closes every connection with a peer, of both kinds and directions. Calls under way fail. Later
// ones dial again, and the Gate is asked again.
func (t *Transport) Drop(id peer.ID) {
	_ = t.host.Network().ClosePeer(ToLibp2p(id)) // what is closed already is no failure
	t.open.close(id)
}

// Connected reports whether a control connection with a peer is open.
func (t *Transport) Connected(id peer.ID) bool {
	return t.host.Network().Connectedness(ToLibp2p(id)) == network.Connected
}

// addressesOf are a peer's addresses, that of an open connection first.
func (t *Transport) addressesOf(id peer.ID) []netip.AddrPort {
	to := ToLibp2p(id)
	var out []netip.AddrPort
	add := func(m multiaddr.Multiaddr) {
		if a, ok := fromMulti(m); ok && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, c := range t.host.Network().ConnsToPeer(to) {
		if c.Stat().Direction == network.DirOutbound {
			add(c.RemoteMultiaddr())
		}
	}
	for _, m := range t.host.Peerstore().Addrs(to) {
		add(m)
	}
	return out
}

// Listening is the address listened on; its IP may be unspecified.
func (t *Transport) Listening() netip.AddrPort { return t.listen }

// Addresses are those at which others may try this node: of every interface that is up, when all are
// listened on. Addresses that hold on one link only are left out.
func (t *Transport) Addresses() []netip.AddrPort {
	listening, err := t.host.Network().InterfaceListenAddresses()
	if err != nil {
		return nil
	}
	var out []netip.AddrPort
	for _, m := range listening {
		if a, ok := fromMulti(m); ok && !a.Addr().IsLinkLocalUnicast() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
