package node

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/presence"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/power"
)

// factsEvery is how often this node looks whether there is news of itself.
const factsEvery = time.Second

// openPresence joins the others: everything else of the mesh is open.
func (n *Node) openPresence(context.Context) error {
	m := n.mesh
	if m == nil {
		return nil
	}
	o, err := n.presenceOptions()
	if err != nil {
		return err
	}
	p, err := presence.Open(o)
	if err != nil {
		return fmt.Errorf("listen.gossip: %w; choose another with --set listen.gossip=IP:PORT", err)
	}
	m.presence = p
	n.onClose("presence", p.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var telling sync.WaitGroup
	telling.Go(func() { n.tellFacts(ctx) })
	n.onClose("facts", func() error {
		cancel()
		telling.Wait()
		return nil
	})
	return nil
}

// presenceOptions is the configuration in the words of mesh/presence.
func (n *Node) presenceOptions() (presence.Options, error) {
	m := n.mesh
	listen, err := netip.ParseAddrPort(n.config.Listen.Gossip)
	if err != nil {
		return presence.Options{}, fmt.Errorf("listen.gossip = %q is not ip:port", n.config.Listen.Gossip)
	}
	// Who listens for members on one address only, or on loopback, does not want to be found on others.
	if at := m.transport.Listening().Addr(); n.config.Origin("listen.gossip").Kind == config.Default && !at.IsUnspecified() {
		listen = netip.AddrPortFrom(at, 0)
	}
	var static []netip.AddrPort
	for _, text := range instances(n.config.Mesh.Peers) {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return presence.Options{}, fmt.Errorf("mesh.peers: %q is not ip:port of a node's gossip", text)
		}
		static = append(static, a)
	}
	return presence.Options{
		Dir: filepath.Join(n.config.Dir.State, "mesh"), Identity: n.identity, Seat: m.seat, Links: m.transport, Caller: transport.Caller,
		Listen: listen, AnyPort: n.config.Origin("listen.gossip").Kind == config.Default, Learned: m.learn, Contacts: m.book.contacts, Networks: n.config.Mesh.Networks,
		Discover: n.config.Mesh.Discover && !listen.Addr().IsLoopback(), Static: static, Log: n.log,
	}, nil
}

// tellFacts keeps the facts this node tells of itself current.
func (n *Node) tellFacts(ctx context.Context) {
	ticker := time.NewTicker(factsEvery)
	defer ticker.Stop()
	net := n.machineNetwork()
	for {
		f := n.facts()
		f.Network = net.at(time.Now())
		n.mesh.presence.Board.Set(f)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// facts are what this node tells the other members of itself: what it lends.
func (n *Node) facts() facts.Facts {
	f := facts.Facts{Version: n.version, State: facts.CacheOnly}
	at, _ := n.lending.governor.Facts()
	if f.Battery = at.OnBattery; at.Metered {
		f.Network = facts.Metered
	}
	m := n.machine
	if m == nil {
		machine := platform.Machine()
		f.OSFamily, f.ISA = machine.OSFamily, machine.ISA
	} else {
		f.OSFamily, f.ISA = m.offer.OSFamily, m.offer.ISA
	}
	if m == nil || !n.report.Tier.Guests() || !n.config.Lend.Enabled {
		f.Reason = "runs no actions of others"
		return f
	}
	lent := n.lending.governor.Status()
	slots := m.room()
	cores, bytes := m.leasing.executor.Free()
	f.Cores, f.CoresFree = slots.Cores, cores
	f.Memory, f.MemoryFree, f.Queued = slots.MemoryBytes, bytes, int64(slots.Waiting)
	f.Fingerprint, f.Pools, f.Tier = m.fingerprint.String(), m.offer.Pools, n.report.Tier.String()
	f.Abilities = m.abilities()
	switch {
	case n.draining.Load() || lent.State == power.Draining:
		f.State, f.Reason = facts.Draining, lent.Reason
	case lent.State == power.Closed:
		f.State, f.Reason = facts.Paused, lent.Reason
	default:
		f.State, f.Reason = facts.Ready, lent.Reason
	}
	return f
}
