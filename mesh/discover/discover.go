package discover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// Group is where beacons go, unless Options say otherwise: administratively scoped (RFC 2365), so that no
// router passes it on beyond the organization.
var Group = netip.MustParseAddrPort("239.255.98.109:8984")

// The two ways to find and be found.
const (
	byBeacon = "beacon"
	byMDNS   = "mDNS"
)

const (
	// tellEvery is the mean time between beacons, up to a fifth more or less.
	tellEvery = 30 * time.Second
	// answerOf is about how many members answer one who asks, however many there are.
	answerOf = 8
)

// askAt are the times after the start or a wake at which a node asks.
var askAt = []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond}

// Options are what a Discover is made from.
type Options struct {
	Self    Self
	Group   netip.AddrPort // the zero value: Group
	Allowed []netip.Prefix // networks whose interfaces are used; none: all
	MDNS    bool           // speak mDNS too
	// Members is how many there are, so that not all answer one who asks. Optional.
	Members func() int
	// Found is told of nodes of this mesh. It must not wait.
	Found func(Find)
}

// Discover tells of this node and listens for others. Make it with Open, end it with Close.
type Discover struct {
	o     Options
	hear  *net.UDPConn // on the group's port, which nodes of one machine share
	speak *net.UDPConn // on a port of its own, where answers come

	mu    sync.Mutex // guards the three below
	finds *finds
	fault error  // why no beacon could be sent last; nil: one was
	renew func() // begins the round of mDNS anew; nil: there is none

	asks    chan struct{}
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Open begins to tell and listen. An error says that no beacon can be heard on this machine.
func Open(o Options) (*Discover, error) {
	if !o.Group.IsValid() {
		o.Group = Group
	}
	if len(o.Self.Label) > MaxLabel || o.Self.Label == "" {
		return nil, fmt.Errorf("discover: a label of %d bytes", len(o.Self.Label))
	}
	// With a multicast address, the net package binds the port on all addresses, shared with others.
	hear, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(o.Group))
	if err != nil {
		return nil, fmt.Errorf("listen for beacons on %s: %w", o.Group, err)
	}
	speak, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("send beacons: %w", err), hear.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Discover{o: o, hear: hear, speak: speak, finds: newFinds(o.Self.Label, o.Self.Peer), asks: make(chan struct{}, 1), stop: stop}
	d.running.Go(func() { d.listen(hear) })
	d.running.Go(func() { d.listen(speak) })
	d.running.Go(func() { d.tell(ctx) })
	if o.MDNS {
		d.running.Go(func() { d.mdns(ctx) })
	}
	return d, nil
}

// Close ends it.
func (d *Discover) Close() error {
	d.stop()
	err := errors.Join(d.hear.Close(), d.speak.Close())
	d.running.Wait()
	return err
}

// Ask asks again who is there, as after a wake or with a new address.
func (d *Discover) Ask() {
	d.mu.Lock()
	if d.renew != nil {
		d.renew()
	}
	d.mu.Unlock()
	select {
	case d.asks <- struct{}{}:
	default:
	}
}

// Finds lists the nodes of this mesh that were told of lately.
func (d *Discover) Finds() []Find {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.finds.list(time.Now())
}

// Strangers lists the other meshes on the same network.
func (d *Discover) Strangers() []Stranger {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.finds.listStrangers(time.Now())
}

// Hearing is what is known of multicast on this machine.
type Hearing struct {
	Echo   time.Time // this node's own beacon was heard last; zero: never
	Others time.Time // anybody else was
	Fault  error     // why the last beacon could not be sent
}

// Hearing tells how well this node hears.
func (d *Discover) Hearing() Hearing {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Hearing{Echo: d.finds.echo, Others: d.finds.others, Fault: d.fault}
}

// tell sends beacons: in haste after the start and a wake, by and by otherwise.
func (d *Discover) tell(ctx context.Context) {
	hear, speak := ipv4.NewPacketConn(d.hear), ipv4.NewPacketConn(d.speak)
	began := time.Now()
	for next := 0; ; {
		pause := tellEvery - tellEvery/5 + rand.N(2*tellEvery/5)
		if next < len(askAt) {
			pause = time.Until(began.Add(askAt[next]))
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-d.asks:
			timer.Stop()
			began, next = time.Now(), 0
			continue
		case <-timer.C:
		}
		err := d.send(hear, speak, beacon{d.o.Self, next < len(askAt)}.encode())
		d.mu.Lock()
		d.fault = err
		d.mu.Unlock()
		next = min(next+1, len(askAt))
	}
}

// send sends a beacon on every interface, and joins the group on those that are new.
func (d *Discover) send(hear, speak *ipv4.PacketConn, data []byte) error {
	interfaces, err := usable(d.o.Allowed)
	if err != nil {
		return err
	}
	group := &net.UDPAddr{IP: d.o.Group.Addr().AsSlice()}
	sent := 0
	var errs []error
	for _, i := range interfaces {
		_ = hear.JoinGroup(&i, group) // fails when joined already
		if err := speak.SetMulticastInterface(&i); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", i.Name, err))
			continue
		}
		if _, err := d.speak.WriteToUDPAddrPort(data, d.o.Group); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", i.Name, err))
			continue
		}
		sent++
	}
	if sent > 0 {
		return nil
	}
	if len(errs) == 0 {
		return errors.New("no interface can multicast")
	}
	return errors.Join(errs...)
}

// listen takes in beacons until the socket is closed.
func (d *Discover) listen(conn *net.UDPConn) {
	data := make([]byte, maxBeacon+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(data)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as an ICMP answer to what was sent
		}
		if b, err := decodeBeacon(data[:n]); err == nil {
			d.heard(b, from)
		}
	}
}

// heard takes in one beacon.
func (d *Discover) heard(b beacon, from netip.AddrPort) {
	addr := from.Addr().Unmap()
	if !allowed(addr, d.o.Allowed) {
		return
	}
	d.take(Find{Self: b.Self, Addr: addr, By: byBeacon})
	if !b.ask || b.Label != d.o.Self.Label || b.Peer == d.o.Self.Peer {
		return
	}
	if d.o.Members != nil && rand.IntN(max(d.o.Members(), 1)) >= answerOf {
		return // others do
	}
	d.mu.Lock()
	pay := d.finds.answers.spend(answersASecond, time.Now())
	d.mu.Unlock()
	if pay {
		_, _ = d.speak.WriteToUDPAddrPort(beacon{Self: d.o.Self}.encode(), from) // lost is lost
	}
}

// take notes a find and tells of news.
func (d *Discover) take(f Find) {
	d.mu.Lock()
	news := d.finds.take(f, time.Now())
	d.mu.Unlock()
	if news && d.o.Found != nil {
		d.o.Found(f)
	}
}
