package transport

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// piped is one end of a pipe that claims to be a TCP connection.
type piped struct {
	net.Conn
	from netip.AddrPort
}

func (p piped) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:8981"))
}
func (p piped) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.from) }

// visited is a front under a virtual clock, and its visitors.
type visited struct {
	*front
	queue    *queue
	visitors []net.Conn
	serving  sync.WaitGroup
}

// newVisited starts a front; onTLS as in openFront.
func newVisited(onTLS func(*guest)) *visited {
	v := &visited{queue: newQueue(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:8981")))}
	v.front = openFront(v.queue, &network.NullResourceManager{}, onTLS)
	v.serving.Go(func() { _ = v.serve() })
	return v
}

// visit connects from an address and says something.
func (v *visited) visit(from string, said ...byte) net.Conn {
	here, there := net.Pipe()
	v.visitors = append(v.visitors, there)
	v.queue.push(piped{here, netip.MustParseAddrPort(from)})
	if len(said) > 0 {
		_, _ = there.Write(said) // read one by one: the front reads the first
	}
	synctest.Wait()
	return there
}

// count is how many guests there are, and of how many addresses.
func (v *visited) count() (guests, addresses int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.guests), len(v.from)
}

// end ends the front and waits for all that ran.
func (v *visited) end() {
	v.close()
	v.serving.Wait()
	for _, c := range v.visitors {
		c.Close()
	}
}

// TestGuestsEnd shows that no guest outlives its time, wherever it waits: for a first byte, in a handshake, for libp2p
// that does not come, or in libp2p's hands; and that nothing runs for it any more.
func TestGuestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisited(func(g *guest) {
			defer g.Close()
			_, _ = io.ReadAll(g) // a handshake with one who says no more
		})
		taken := v.visit("10.0.0.2:1", firstMultistream)
		g := <-v.lane // libp2p takes one, and never closes it
		v.visit("10.0.0.2:2")
		v.visit("10.0.0.3:1", firstTLS)
		for range 100 {
			v.visit("10.0.0.4:1", firstMultistream)
		}
		if guests, addresses := v.count(); guests != 103 || addresses != 3 {
			t.Errorf("%d guests of %d addresses, want 103 of 3", guests, addresses)
		}
		time.Sleep(greetTimeout - time.Second)
		v.visit("10.0.0.5:1") // a late one has its own time
		time.Sleep(time.Second)
		synctest.Wait()
		if guests, addresses := v.count(); guests != 1 || addresses != 1 {
			t.Errorf("after their time %d guests of %d addresses are left, want the late one", guests, addresses)
		}
		if _, err := taken.Read(make([]byte, 1)); err == nil {
			t.Error("the connection libp2p has is open")
		}
		g.Close() // as libp2p does in the end
		g.prove()
		time.Sleep(greetTimeout)
		v.running.Wait() // else the bubble stands still for ever
		if guests, addresses := v.count(); guests != 0 || addresses != 0 {
			t.Errorf("in the end %d guests of %d addresses", guests, addresses)
		}
		v.end()
	})
}

// TestProven shows that who has proven itself stays, and leaves its place to others, once.
func TestProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisited(func(*guest) {})
		member := v.visit("10.0.0.2:1", firstMultistream)
		g := <-v.lane
		v.visit("10.0.0.2:2", firstMultistream)
		g.prove()
		g.prove()
		if guests, addresses := v.count(); guests != 1 || addresses != 1 {
			t.Errorf("%d guests of %d addresses, want the one who has proven nothing", guests, addresses)
		}
		time.Sleep(2 * greetTimeout)
		go g.Write([]byte("!"))
		if _, err := io.ReadFull(member, make([]byte, 1)); err != nil {
			t.Errorf("a member is put out: %v", err)
		}
		g.Close()
		v.end()
	})
}
