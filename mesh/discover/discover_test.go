package discover

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// group is a group of this test's own, with a free port.
func group(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return netip.AddrPortFrom(netip.MustParseAddr("239.255.98.110"), uint16(c.LocalAddr().(*net.UDPAddr).Port))
}

// open makes a Discover that tells of a node and gives what it finds.
func open(t *testing.T, o Options) (*Discover, <-chan Find) {
	t.Helper()
	found := make(chan Find, 100)
	o.Found = func(f Find) { found <- f }
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, found
}

// await waits for a find.
func await(t *testing.T, found <-chan Find, id peer.ID) Find {
	t.Helper()
	select {
	case f := <-found:
		if f.Peer != id {
			t.Fatalf("found %+v", f)
		}
		return f
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was found")
		return Find{}
	}
}

// TestTwo: two nodes find each other by beacons, and see a stranger, whom they leave alone. Without an interface
// that can multicast, as in a bare network namespace, the beacons are handed over one by one.
func TestTwo(t *testing.T) {
	at := group(t)
	ben, eve := ana, ana
	ben.Peer, ben.Gossip = peer.ID{3}, 7947
	eve.Peer, eve.Label, eve.Mesh = peer.ID{4}, "another", "Eve's"
	a, founda := open(t, Options{Self: ana, Group: at})
	b, foundb := open(t, Options{Self: ben, Group: at})
	e, founde := open(t, Options{Self: eve, Group: at})
	if interfaces, err := usable(nil); err != nil || len(interfaces) == 0 {
		t.Log("no interface can multicast")
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(a.speak.LocalAddr().(*net.UDPAddr).Port))
		for _, from := range []*Discover{b, e} {
			if _, err := from.speak.WriteToUDPAddrPort(beacon{from.o.Self, true}.encode(), to); err != nil {
				t.Fatal(err)
			}
		}
		if a.Hearing().Fault == nil {
			await(t, founda, ben.Peer) // before that, the first beacon may not have failed yet
		}
		await(t, foundb, ana.Peer) // the answer
	} else {
		if f := await(t, founda, ben.Peer); f.Gossip != ben.Gossip || f.Mesh != ana.Mesh || !f.Addr.IsValid() {
			t.Errorf("%+v", f)
		}
		await(t, foundb, ana.Peer)
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(a.Strangers()) == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if s := a.Strangers(); len(s) != 1 || s[0].Mesh != eve.Mesh {
		t.Errorf("strangers: %+v", s)
	}
	if len(founde) != 0 || len(e.Finds()) != 0 {
		t.Errorf("the stranger found %+v", e.Finds())
	}
	if f := a.Finds(); len(f) != 1 || f[0].Peer != ben.Peer {
		t.Errorf("finds: %+v", f)
	}
}

// TestMDNS begins and ends; whether anybody is found depends on the machine's network.
func TestMDNS(t *testing.T) {
	d, _ := open(t, Options{Self: ana, Group: group(t), MDNS: true})
	d.Ask()
	d.Ask()
}

func TestOptions(t *testing.T) {
	if _, err := Open(Options{Self: Self{}}); err == nil {
		t.Error("a node of no mesh tells of itself")
	}
	if _, err := Open(Options{Self: ana, Group: netip.MustParseAddrPort("203.0.113.1:1")}); err == nil {
		t.Error("an address that is not this machine's is listened on")
	}
}
