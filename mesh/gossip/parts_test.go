package gossip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/hashicorp/memberlist"
)

var zero = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func TestSlept(t *testing.T) {
	for name, test := range map[string]struct {
		wall, mono time.Duration
		want       bool
	}{
		"awake":                         {time.Second, time.Second, false},
		"busy":                          {4 * time.Second, 4 * time.Second, false},
		"suspended: only the wall goes": {8 * time.Hour, time.Second, true},
		"stopped: both go":              {8 * time.Hour, 8 * time.Hour, true},
		"wall clock set back":           {-time.Hour, time.Second, false},
		"set back while stopped":        {-time.Hour, time.Minute, true},
		"asleep for a moment":           {6 * time.Second, time.Second, true},
	} {
		got := slept(pulse{zero, time.Hour}, pulse{zero.Add(test.wall), time.Hour + test.mono})
		if (got > 0) != test.want {
			t.Errorf("%s: slept %v, want %v", name, got, test.want)
		}
	}
}

// held lists the epochs in a ring, and the one in use behind a slash.
func held(r *ring) string {
	var out []uint64
	for _, k := range r.keys {
		out = append(out, k.epoch)
	}
	return fmt.Sprint(out, "/", r.use)
}

func TestRing(t *testing.T) {
	at := func(seconds int) time.Time { return zero.Add(time.Duration(seconds) * time.Second) }
	r := newRing(1, Key{1}, zero)
	check := func(seconds int, others told, want string) {
		t.Helper()
		r.step(others, at(seconds))
		if got := held(r); got != want {
			t.Errorf("after %d s: %s, want %s", seconds, got, want)
		}
	}
	check(0, told{1, 1}, "[1]/1")
	r.add(2, Key{2}, at(1))
	check(1, told{1, 1}, "[1 2]/1") // added, and nobody else has it
	check(5, told{2, 1}, "[1 2]/2") // all have it: used
	check(6, told{2, 1}, "[1 2]/2") // one still seals with the old one
	check(7, told{2, 2}, "[2]/2")   // all use it: the old one goes
	r.add(1, Key{1}, at(8))         // replayed
	r.add(2, Key{9}, at(8))
	check(8, told{2, 2}, "[2]/2")
	r.add(3, Key{3}, at(10))
	check(39, told{2, 2}, "[2 3]/2")
	check(40, told{2, 2}, "[2 3]/3") // one is slow to learn; the others do not wait for ever
	check(99, told{2, 2}, "[2 3]/3")
	check(100, told{2, 2}, "[3]/3")
	for epoch := uint64(9); epoch > 3; epoch-- {
		r.add(epoch, Key{byte(epoch)}, at(101))
	}
	if len(r.keys) != maxKeys || r.held() != 9 || r.keys[0].epoch != 3 {
		t.Errorf("%s: the newest, and the one in use, have to stay", held(r))
	}
}

// TestKeyring brings memberlist's keyring through every change of ours.
func TestKeyring(t *testing.T) {
	keyring, err := memberlist.NewKeyring(nil, (&Key{1})[:])
	if err != nil {
		t.Fatal(err)
	}
	g := &Gossip{keyring: keyring, ring: newRing(1, Key{1}, zero)}
	check := func(first byte, others ...byte) {
		t.Helper()
		before := slices.Clone(keyring.GetKeys())
		readers := keyring.GetKeys()
		g.applyRing()
		for i := range before {
			if &before[i][0] != &readers[i][0] {
				t.Error("a slice others may read was written into")
			}
		}
		var got []byte
		for _, k := range keyring.GetKeys() {
			got = append(got, k[0])
		}
		slices.Sort(got[1:])
		if got[0] != first || !slices.Equal(got[1:], others) {
			t.Errorf("keys %v, want %v first and %v", got, first, others)
		}
	}
	check(1)
	g.ring.add(2, Key{2}, zero)
	g.ring.add(3, Key{3}, zero)
	check(1, 2, 3)
	g.ring.use = 2
	check(2, 1, 3)
	g.ring.keys = g.ring.keys[1:]
	check(2, 3)
	g.ring.use, g.ring.keys = 3, g.ring.keys[1:]
	check(3)
}

func TestPick(t *testing.T) {
	var lost []roster.Member
	for i := range 40 {
		lost = append(lost, roster.Member{ID: peer.ID{byte(i + 1)}, Gossip: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1)})
	}
	seeds := []netip.AddrPort{netip.MustParseAddrPort("10.1.0.1:1"), netip.MustParseAddrPort("10.1.0.2:1"), netip.MustParseAddrPort("10.1.0.3:1"), netip.MustParseAddrPort("10.1.0.4:1")}
	seen := make(map[netip.AddrPort]int)
	for range 2000 {
		got := pick(lost, seeds, false)
		if len(got) != rejoinTo {
			t.Fatalf("%d picked: %v", len(got), got)
		}
		slices.SortFunc(got, netip.AddrPort.Compare)
		if len(slices.Compact(got)) != rejoinTo {
			t.Fatalf("one twice: %v", got)
		}
		for _, at := range got {
			seen[at]++
		}
	}
	if len(seen) != len(lost)+len(seeds) {
		t.Errorf("%d of %d ever tried", len(seen), len(lost)+len(seeds))
	}
	if n := len(pick(lost, seeds, true)); n != 2*rejoinTo {
		t.Errorf("alone: %d picked", n)
	}
	if n := len(pick(lost[:1], nil, false)); n != 1 {
		t.Errorf("one lost: %d picked", n)
	}
	if n := len(pick(nil, nil, true)); n != 0 {
		t.Errorf("nobody: %d picked", n)
	}
	if len(lost) != 40 || lost[39].ID != (peer.ID{40}) || seeds[0] != netip.MustParseAddrPort("10.1.0.1:1") {
		t.Error("the arguments were changed")
	}
}

func TestJitter(t *testing.T) {
	for range 1000 {
		if d := jitter(10 * time.Second); d < 8*time.Second || d > 12*time.Second {
			t.Fatalf("%v", d)
		}
	}
	if jitter(0) != 0 {
		t.Error("at once is at once")
	}
}

// fakeTransport hands over streams.
type fakeTransport struct {
	memberlist.NodeAwareTransport
	streams chan net.Conn
}

func (f *fakeTransport) StreamCh() <-chan net.Conn { return f.streams }
func (f *fakeTransport) Shutdown() error           { return nil }

// fakeConn brings zero bytes without end.
type fakeConn struct {
	net.Conn
	from   string
	closed chan struct{}
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *fakeConn) Read(p []byte) (int, error) { return len(p), nil }
func (c *fakeConn) Close() error               { close(c.closed); return nil }

func TestGate(t *testing.T) {
	inner := &fakeTransport{streams: make(chan net.Conn)}
	g := newGate(inner, func() int { return 0 })
	offer := func(from string) (net.Conn, bool) {
		c := &fakeConn{from: from, closed: make(chan struct{})}
		inner.streams <- c
		select {
		case in := <-g.StreamCh():
			return in, true
		case <-c.closed:
			return nil, false
		}
	}
	var open []net.Conn
	for i := range maxStreamsFrom {
		c, ok := offer("10.0.0.1:1")
		if !ok {
			t.Fatalf("stream %d turned away", i)
		}
		open = append(open, c)
	}
	if _, ok := offer("10.0.0.1:2"); ok {
		t.Error("one address has more than its share")
	}
	for i := range maxStreams - maxStreamsFrom {
		c, ok := offer(fmt.Sprintf("10.0.1.%d:1", i))
		if !ok {
			t.Fatalf("stream of another address turned away")
		}
		open = append(open, c)
	}
	if _, ok := offer("10.0.2.1:1"); ok {
		t.Error("more streams than there may be")
	}
	n, err := io.Copy(io.Discard, open[0])
	if n != streamBase || !errors.Is(err, errTooMuch) {
		t.Errorf("a stream brought %d bytes, %v", n, err)
	}
	for _, c := range open {
		c.Close()
	}
	if c, ok := offer("10.0.0.1:3"); !ok {
		t.Error("closed streams keep their places")
	} else {
		c.Close()
	}
	if g.turned.Load() != 2 || g.total != 0 || len(g.from) != 0 {
		t.Errorf("turned %d, total %d, from %v", g.turned.Load(), g.total, g.from)
	}
	if err := errors.Join(g.Shutdown(), g.Shutdown()); err != nil {
		t.Error(err)
	}
}

// TestListen takes a port of this machine and keeps it.
func TestListen(t *testing.T) {
	network := ListenOn(netip.MustParseAddrPort("127.0.0.1:0"))
	first, port, err := network.Listen(netip.AddrPort{})
	if err != nil || port == 0 {
		t.Fatal(port, err)
	}
	if _, _, err := network.Listen(netip.AddrPort{}); err == nil {
		t.Error("two listen on one port")
	}
	if err := first.Shutdown(); err != nil {
		t.Fatal(err)
	}
	again, same, err := network.Listen(netip.AddrPort{})
	if err != nil || same != port {
		t.Fatalf("port %d, then %d, %v", port, same, err)
	}
	if err := again.Shutdown(); err != nil {
		t.Error(err)
	}
}
