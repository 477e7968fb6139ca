package simnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// headers are what IPv4, UDP and Ethernet add to a packet.
	headers = 20 + 8 + 18
	// dialCost is what opening and closing a TCP connection takes, in bytes each way.
	dialCost = 4 * (20 + 32 + 18)
	// segment is what one TCP segment carries, and segmentCost what that adds.
	segment, segmentCost = 1448, 20 + 32 + 18
	// inbox is how many packets wait for a slow node before more are lost.
	inbox = 1024
)

// Weather is how the network treats packets.
type Weather struct {
	Loss     float64       // part of packets that are lost
	Delay    time.Duration // least one-way delay
	Jitter   time.Duration // at most this much more
	NoPacket bool          // UDP is filtered; streams pass
}

// Network is a simulated network. All its methods may be called by any number of goroutines.
type Network struct {
	mu      sync.Mutex // guards all below
	random  *rand.Rand
	weather Weather
	ports   map[netip.AddrPort]*Port
	side    map[netip.Addr]int // of a partition; addresses not in it are on side 0
	down    map[netip.Addr]bool
	next    uint32
}

// NewNetwork makes a network without weather.
func NewNetwork(seed uint64) *Network {
	return &Network{random: rand.New(rand.NewPCG(seed, seed)), ports: make(map[netip.AddrPort]*Port),
		side: make(map[netip.Addr]int), down: make(map[netip.Addr]bool)}
}

// SetWeather changes how packets are treated from now on.
func (n *Network) SetWeather(w Weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather = w
}

// Address gives an address nobody had before.
func (n *Network) Address() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	return netip.AddrFrom4([4]byte{10, byte(n.next >> 16), byte(n.next >> 8), byte(n.next)})
}

// Partition parts the network: each address in a side of its own group. Heal ends it.
func (n *Network) Partition(sides ...[]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.side)
	for i, addresses := range sides {
		for _, a := range addresses {
			n.side[a] = i + 1
		}
	}
}

// Heal ends a partition.
func (n *Network) Heal() { n.Partition() }

// Unplug takes an address off the network or, with down false, puts it back.
func (n *Network) Unplug(a netip.Addr, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[a] = down
}

// reach reports whether a packet from one address gets to another. Caller holds mu.
func (n *Network) reach(from, to netip.Addr) bool {
	return n.side[from] == n.side[to] && !n.down[from] && !n.down[to]
}

// later is the delay of one packet. Caller holds mu.
func (n *Network) later() time.Duration {
	d := n.weather.Delay
	if n.weather.Jitter > 0 {
		d += time.Duration(n.random.Int64N(int64(n.weather.Jitter)))
	}
	return d
}

// Port is one address and port a node listens on. It implements memberlist's transport.
type Port struct {
	net     *Network
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	once    sync.Once

	Sent, Received atomic.Int64 // bytes, headers included
}

// Listen takes an address and port.
func (n *Network) Listen(at netip.AddrPort) (*Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[at] != nil {
		return nil, fmt.Errorf("listen on %s: address in use", at)
	}
	p := &Port{net: n, at: at, packets: make(chan *memberlist.Packet, inbox), streams: make(chan net.Conn), closed: make(chan struct{})}
	n.ports[at] = p
	return p, nil
}

// FinalAdvertiseAddr is part of memberlist.Transport.
func (p *Port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.at.Addr().AsSlice(), int(p.at.Port()), nil
}

// PacketCh is part of memberlist.Transport.
func (p *Port) PacketCh() <-chan *memberlist.Packet { return p.packets }

// StreamCh is part of memberlist.Transport.
func (p *Port) StreamCh() <-chan net.Conn { return p.streams }

// WriteTo is part of memberlist.Transport.
func (p *Port) WriteTo(b []byte, to string) (time.Time, error) {
	return p.WriteToAddress(b, memberlist.Address{Addr: to})
}

// WriteToAddress sends a packet: it arrives later, or not.
func (p *Port) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	now := time.Now()
	at, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return now, err
	}
	select {
	case <-p.closed:
		return now, net.ErrClosed
	default:
	}
	p.Sent.Add(int64(len(b) + headers))
	p.net.Inject(p.at, at, b)
	return now, nil
}

// Inject sends a packet from any address, forged or not.
func (n *Network) Inject(from, at netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.ports[at]
	if to == nil || n.weather.NoPacket || !n.reach(from.Addr(), at.Addr()) || n.random.Float64() < n.weather.Loss {
		return
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(from)}
	deliver := func() {
		packet.Timestamp = time.Now()
		select {
		case to.packets <- packet:
			to.Received.Add(int64(len(b) + headers))
		default: // the receive buffer is full
		}
	}
	if wait := n.later(); wait > 0 {
		time.AfterFunc(wait, deliver)
		return
	}
	deliver()
}

// DialTimeout is part of memberlist.Transport.
func (p *Port) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	return p.DialAddressTimeout(memberlist.Address{Addr: to}, timeout)
}

// DialAddressTimeout opens a stream. It is refused where nobody listens, and hangs across a partition.
func (p *Port) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return p.net.Dial(p, to.Addr, timeout)
}

// errRefused is what a dial to a port gives that nobody listens on.
var errRefused = errors.New("connection refused")

// Dial opens a stream from p.
func (n *Network) Dial(p *Port, to string, timeout time.Duration) (net.Conn, error) {
	at, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	there, reached := n.ports[at], n.reach(p.at.Addr(), at.Addr())
	wait := n.later() + n.later()
	n.mu.Unlock()
	if !reached {
		wait = timeout
	}
	select {
	case <-time.After(min(wait, timeout)):
	case <-p.closed:
		return nil, net.ErrClosed
	}
	fault := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(at), Err: err}
	}
	if !reached {
		return fault(os.ErrDeadlineExceeded)
	}
	if there == nil {
		return fault(errRefused)
	}
	near, far := net.Pipe()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	p.Sent.Add(dialCost)
	p.Received.Add(dialCost)
	there.Sent.Add(dialCost)
	there.Received.Add(dialCost)
	select {
	case there.streams <- &stream{Conn: far, local: at, remote: p.at, port: there}:
		return &stream{Conn: near, local: p.at, remote: at, port: p}, nil
	case <-there.closed:
		return fault(errRefused)
	case <-timer.C:
		return fault(os.ErrDeadlineExceeded)
	}
}

// Shutdown gives the port up.
func (p *Port) Shutdown() error {
	p.once.Do(func() {
		close(p.closed)
		p.net.mu.Lock()
		defer p.net.mu.Unlock()
		delete(p.net.ports, p.at)
	})
	return nil
}

// stream is one end of a connection. One that is open when a partition comes lives on: gossip's last for
// milliseconds.
type stream struct {
	net.Conn
	local, remote netip.AddrPort
	port          *Port
}

func (s *stream) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(s.local) }
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.port.Sent.Add(wire(n))
	return n, err
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.port.Received.Add(wire(n))
	return n, err
}

// wire is what n bytes of a stream are on the wire.
func wire(n int) int64 { return int64(n + (n+segment-1)/segment*segmentCost) }
