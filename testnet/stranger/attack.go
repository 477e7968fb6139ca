package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
)

const (
	atOnce = 256              // connections held
	addrs  = 50               // addresses used at most
	hold   = 2 * time.Second  // how long a silent connection is held
	answer = 12 * time.Second // how long an answer is waited for; a victim's own patience ends before
)

// The protocols of the two doors, as mesh/transport names them.
const (
	helloProtocol  = "buildmesh-hello/1"
	memberProtocol = "h2"
)

// attacks are the attacks by name; each is one connection or datagram.
var attacks = map[string]func(*stranger, context.Context) error{
	"connections": (*stranger).connection,
	"noise":       (*stranger).noise,
	"hellos":      (*stranger).hello,
	"greetings":   (*stranger).greeting,
	"knocks":      (*stranger).knock,
	"claims":      (*stranger).claim,
	"charters":    (*stranger).charter,
	"packets":     (*stranger).packet,
	"streams":     (*stranger).stream,
	"obituaries":  (*stranger).obituary,
}

// stranger is the adversary.
type stranger struct {
	victim   netip.AddrPort
	from     []netip.Addr // addresses of its own; empty: the machine's
	self     *peer.Identity
	root     *trust.Root // of a mesh of its own
	identity *libp2ptls.Identity
	insider  *insider // nil: it is none

	sent, admitted atomic.Int64

	mu     sync.Mutex // guards all below
	heard  map[string]bool
	random *mathrand.Rand
}

// most is how many unlike answers are remembered.
const most = 4

// newStranger makes a peer id and, where that is allowed, some more addresses.
func newStranger(victim netip.AddrPort, count int) (*stranger, error) {
	self, err := peer.Generate()
	if err != nil {
		return nil, err
	}
	s := &stranger{victim: victim, self: self, heard: map[string]bool{}, random: mathrand.New(mathrand.NewPCG(1, 1))}
	if s.root, err = trust.NewRoot(); err != nil {
		return nil, err
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(self.Private())
	if err != nil {
		return nil, err
	}
	if s.identity, err = libp2ptls.NewIdentity(key); err != nil {
		return nil, err
	}
	for i := range min(addrs, count/50) {
		address := netip.AddrFrom4([4]byte{10, 77, 200, byte(i + 1)})
		if exec.Command("ip", "address", "add", address.String()+"/32", "dev", "eth0").Run() == nil {
			s.from = append(s.from, address)
		}
	}
	return s, nil
}

// flood does the attack count times, atOnce at a time.
func (s *stranger) flood(ctx context.Context, count int, attack func(*stranger, context.Context) error) {
	var wait sync.WaitGroup
	gate := make(chan struct{}, atOnce)
	for range count {
		if ctx.Err() != nil {
			break
		}
		gate <- struct{}{}
		wait.Go(func() {
			defer func() { <-gate }()
			if attack(s, ctx) == nil {
				s.admitted.Add(1)
			}
			s.sent.Add(1)
		})
	}
	wait.Wait()
}

// dial connects from one of the addresses.
func (s *stranger) dial(ctx context.Context, network string) (net.Conn, error) {
	d := net.Dialer{Timeout: answer}
	if len(s.from) > 0 {
		from := netip.AddrPortFrom(s.from[mathrand.IntN(len(s.from))], 0)
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	conn, err := d.DialContext(ctx, network, s.victim.String())
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(answer))
}

// served waits for the end of the connection; an error means that it came without the victim having said enough to be
// one that serves: more than a refusal and a closed door. A reset throws away what was said before it, unless that was
// read already, so what is heard before one is chance and not remembered.
func (s *stranger) served(conn net.Conn) error {
	const enough = 4 << 10
	said, err := io.ReadAll(io.LimitReader(conn, enough))
	if len(said) > 0 && !errors.Is(err, syscall.ECONNRESET) {
		s.remember(said)
	}
	if len(said) == enough {
		return nil
	}
	return fmt.Errorf("%d bytes, then %v", len(said), err)
}

func (s *stranger) remember(said []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.heard) < most {
		s.heard[fmt.Sprintf("%.40q", said)] = true
	}
}

func (s *stranger) connection(ctx context.Context) error {
	conn, err := s.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(hold))
	return s.served(conn)
}

func (s *stranger) noise(ctx context.Context) error {
	conn, err := s.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(s.junk(4096)); err != nil {
		return err
	}
	return s.served(conn)
}

func (s *stranger) hello(ctx context.Context) error { return s.door(ctx, helloProtocol, s.nonsense) }
func (s *stranger) greeting(ctx context.Context) error {
	return s.door(ctx, memberProtocol, s.nonsense)
}

// nonsense says random bytes.
func (s *stranger) nonsense(conn net.Conn, _ peer.ID) error {
	_, err := conn.Write(s.junk(1024))
	return err
}

// door proves the stranger's peer id, speaks and hears what is answered.
func (s *stranger) door(ctx context.Context, protocol string, speak func(net.Conn, peer.ID) error) error {
	raw, err := s.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	conn, victim, err := s.prove(ctx, raw, protocol)
	if err != nil {
		return err
	}
	if err := speak(conn, victim); err != nil {
		return err
	}
	return s.served(conn)
}

// packet sends a datagram; nothing can be let in by one.
func (s *stranger) packet(ctx context.Context) error {
	conn, err := s.dial(ctx, "udp")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(s.junk(65507)); err != nil {
		return err
	}
	return errNothing
}

// stream begins as gossip's streams do when they are encrypted, announces four gigabytes and sends up to 16 MiB.
func (s *stranger) stream(ctx context.Context) error {
	conn, err := s.dial(ctx, "tcp")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	const encrypted = 10 // memberlist's message type
	if _, err := conn.Write(binary.BigEndian.AppendUint32([]byte{encrypted}, 1<<32-1)); err != nil {
		return err
	}
	block := s.junk(64 << 10)
	for range 256 {
		if _, err := conn.Write(block); err != nil {
			return err
		}
	}
	return s.served(conn)
}

// junk is random bytes, at most as many. Every run of the program says the same ones.
func (s *stranger) junk(most int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make([]byte, 1+s.random.IntN(most))
	for i := range b {
		b[i] = byte(s.random.Uint32())
	}
	return b
}
