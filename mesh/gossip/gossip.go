package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/hashicorp/memberlist"
)

// Options are what a Gossip is made from. All but the marked ones are needed.
type Options struct {
	Identity  Identity
	Admission Admission
	Roster    *roster.Roster
	Network   Network
	Label     string // public name of the mesh on the wire: a hash of its root, at most 32 bytes
	Epoch     uint64 // of Key
	Key       Key

	Control uint16 // port of the control listener, told to others; 0: none
	Bulk    uint16 // port of the bulk listener; 0: none

	// Address is where others reach this node now; the port counts at the first start only, 0 lets the
	// network choose. The zero AddrPort means: nowhere, try again.
	Address func() netip.AddrPort
	// Seeds are addresses to try beside the members the roster remembers. Optional.
	Seeds func() []netip.AddrPort
	// Newer is told of a member that knows a newer revocation list. It must not wait. Optional.
	Newer func(id peer.ID, epoch uint64)
	// Woke is told after a sleep, before the rejoin: stale connections should go. Optional.
	Woke func(slept time.Duration)
	Log  *slog.Logger
	// Wall is this machine's clock; nil: time.Now. A machine that sleeps comes back with it ahead of what has run.
	Wall func() time.Time
}

// Gossip is this node's part in gossip. Make it with New, end it with Close.
type Gossip struct {
	o    Options
	door *door

	mu      sync.Mutex             // guards all below; never held while memberlist is called (it calls back under its own lock)
	list    *memberlist.Memberlist // nil while there is no address
	keyring *memberlist.Keyring
	gate    *gate
	ring    *ring
	at      netip.AddrPort
	leaving bool
	cards   map[peer.ID]*introduced // of members alive
	newer   map[peer.ID]uint64      // to be told to Options.Newer
	report  report

	updates atomic.Bool // the card has to be told anew
	kicks   chan netip.AddrPort
	woke    chan struct{}
	stop    context.CancelFunc
	running sync.WaitGroup
	joining sync.WaitGroup
	rejoin  *rejoin
	closed  sync.Once
}

// New begins to gossip: it listens when it returns, and goes looking for the others.
func New(o Options) (*Gossip, error) {
	g := &Gossip{o: o, door: newDoor(o.Admission, o.Label), ring: newRing(o.Epoch, o.Key, time.Now()),
		cards: make(map[peer.ID]*introduced), newer: make(map[peer.ID]uint64),
		kicks: make(chan netip.AddrPort, 32), woke: make(chan struct{}, 1)}
	g.rejoin = newRejoin(g)
	if g.o.Wall == nil {
		g.o.Wall = time.Now
	}
	if g.o.Log == nil {
		g.o.Log = slog.New(slog.DiscardHandler)
	}
	keyring, err := memberlist.NewKeyring(nil, o.Key[:])
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	g.keyring = keyring
	if at := o.Address(); at.IsValid() { // else the first pulse after there is one begins
		if err := g.create(at); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.running.Go(func() { g.run(ctx) })
	return g, nil
}

// create begins anew at an address, under a new boot. Only New and run call it.
func (g *Gossip) create(at netip.AddrPort) error {
	transport, port, err := g.o.Network.Listen(at)
	if err != nil {
		return err
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), port)
	gate := newGate(transport, func() int { return len(g.o.Roster.Now().Members) })
	d := &delegate{gossip: g, name: nameOf(g.o.Identity.ID(), newBoot()), at: at}
	list, err := memberlist.Create(g.settings(d, gate))
	if err != nil {
		return errors.Join(fmt.Errorf("begin gossip at %s: %w", at, err), gate.Shutdown())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list, g.at, g.gate = list, at, gate
	return nil
}

// settings are the start values; deviations from memberlist's own are explained where they stand.
func (g *Gossip) settings(d *delegate, transport memberlist.Transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.Label, c.Keyring = d.name, transport, g.o.Label, g.keyring
	c.AdvertiseAddr, c.AdvertisePort, c.BindPort = d.at.Addr().String(), int(d.at.Port()), int(d.at.Port())
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.IndirectChecks = suspicionMult, 3
	c.DeadNodeReclaimTime = 10 * time.Second
	c.PushPullInterval = 30 * time.Second
	c.EnableCompression = false // cards are signatures and keys: nothing to win, and every packet pays
	c.HandoffQueueDepth = 4 * 1024
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = d, d, d, d, d
	c.Logger = newMuffle(g.o.Log, g.onlyTCP)
	return c
}

// The values of failure detection. With 1.5 s, 1 s and 4, fifty nodes in testnet/simnet knew a killed one dead
// after 12.6 to 16.6 s (6 seeds); with these after 5.2 to 8.1 s (30 seeds, TestOffice). An idle node of 50 pays
// 2.3 KB/s for it in all; a false alarm that haste brings, own evidence in the roster makes good.
const (
	probeInterval = 750 * time.Millisecond
	probeTimeout  = 400 * time.Millisecond
	suspicionMult = 3
)

// run is the one goroutine that replaces the list: everything that takes time it hands to rejoin.
func (g *Gossip) run(ctx context.Context) {
	began := time.Now()
	pulses := time.NewTicker(pulseEvery)
	defer pulses.Stop()
	last := g.look(began)
	g.rejoin.start()
	defer g.rejoin.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pulses.C:
			now := g.look(began)
			away := slept(last, now)
			last = now
			if away > 0 {
				g.wake(away)
			}
			g.follow()
			g.turnKeys()
			g.tell()
		case <-g.woke:
			g.wake(0)
		case at := <-g.kicks:
			g.rejoin.join(at)
		case <-g.rejoin.timer.C:
			g.rejoin.round()
		}
	}
}

// wake rejoins after a sleep.
func (g *Gossip) wake(away time.Duration) {
	if g.o.Woke != nil {
		g.o.Woke(away)
	}
	g.follow()
	g.rejoin.all()
}

// Woke tells that the machine woke, if the system says so before the wake detector finds out.
func (g *Gossip) Woke() {
	select {
	case g.woke <- struct{}{}:
	default: // it is being looked after
	}
}

// Join tries an address at once, as discovery found it. It does not wait.
func (g *Gossip) Join(at netip.AddrPort) {
	select {
	case g.kicks <- at:
	default: // more finds than anybody could join; the rejoin loop comes to them
	}
}

// Install takes in the gossip key of an epoch, as it came over an authenticated stream.
func (g *Gossip) Install(epoch uint64, key Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ring.add(epoch, key, time.Now())
	g.applyRing()
	g.updates.Store(true)
}

// Recheck looks at everybody's certificate anew when next heard of, and tells the own card again: after a
// new revocation list, or when the own certificate was renewed.
func (g *Gossip) Recheck() {
	g.door.forget()
	g.updates.Store(true)
}

// Leave says goodbye: the others know at once that this node goes. Close must follow.
func (g *Gossip) Leave(ctx context.Context) {
	wait := time.Second
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	g.mu.Lock()
	list := g.list
	g.leaving = true
	g.mu.Unlock()
	if wait <= 0 || list == nil || list.NumMembers() < 2 {
		return
	}
	// The signed card first: memberlist's own goodbye can be said by any holder of the key.
	_ = list.UpdateNode(wait)
	_ = list.Leave(wait)
}

// Close ends gossip without a goodbye. Calls after the first do nothing.
func (g *Gossip) Close() error {
	var err error
	g.closed.Do(func() {
		g.stop()
		g.running.Wait()
		if g.list != nil { // run, which replaces it, has ended
			err = g.list.Shutdown()
		}
		g.joining.Wait()
	})
	return err
}
