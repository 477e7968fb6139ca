package simnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/gossip"
	"github.com/buildmesh/buildmesh/mesh/health"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/hashicorp/memberlist"
)

// GossipPort is where every node of an office gossips.
const GossipPort = 7946

// Office is nodes that gossip on one network. Its methods are called by one goroutine.
type Office struct {
	Net       *Network
	Authority *Authority
	Label     string
	Key       gossip.Key
	Nodes     []*Node
}

// Node is one node of an office.
type Node struct {
	ID     peer.ID
	Name   string
	Roster *roster.Roster
	Gossip *gossip.Gossip // nil: not running
	Health *health.Health
	Skew   time.Duration // of its clock, as certificates are checked by it

	key    Key
	office *Office
	member *member

	mu    sync.Mutex // guards all below
	at    netip.Addr
	port  *Port
	seeds []netip.AddrPort
	slept time.Duration      // how far its wall clock is ahead of the time it ran
	woken []time.Duration    // what Options.Woke was told
	newer map[peer.ID]uint64 // what Options.Newer was told
}

// NewOffice makes an office with nobody in it, of the mesh with a number.
func NewOffice(net *Network, mesh uint64) *Office {
	return &Office{Net: net, Authority: NewAuthority(mesh), Label: fmt.Sprintf("mesh%04d", mesh), Key: gossip.Key{byte(mesh)}}
}

// Add makes a node that does not run yet. seeds are the addresses an invite would carry.
func (o *Office) Add(seeds ...netip.AddrPort) *Node {
	n := len(o.Nodes)
	key := NewKey(uint64(o.Key[0])<<32 + uint64(n))
	node := &Node{ID: key.ID(), Name: fmt.Sprintf("node%d", n), key: key, office: o, at: o.Net.Address(), seeds: seeds,
		newer: make(map[peer.ID]uint64)}
	node.member = &member{authority: o.Authority, cert: o.Authority.Issue(node.ID, node.Name, time.Now().Add(lifetime)),
		clock: func() time.Time { return time.Now().Add(node.Skew) }}
	node.Roster = roster.Open("", node.ID, func(error) {})
	o.Nodes = append(o.Nodes, node)
	return node
}

// Close ends every node.
func (o *Office) Close() error {
	var errs []error
	for _, n := range o.Nodes {
		errs = append(errs, n.Kill(), n.Roster.Close())
	}
	return errors.Join(errs...)
}

// Start lets a node run, with the roster it had.
func (n *Node) Start() error {
	g, err := gossip.New(gossip.Options{
		Identity: n.key, Admission: n.member, Roster: n.Roster, Network: nodeNetwork{n},
		Label: n.office.Label, Epoch: 1, Key: n.office.Key,
		Address: func() netip.AddrPort { return netip.AddrPortFrom(n.Addr(), GossipPort) },
		Seeds: func() []netip.AddrPort {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.seeds
		},
		Newer: func(id peer.ID, epoch uint64) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.newer[id] = epoch
		},
		Woke: func(slept time.Duration) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.woken = append(n.woken, slept)
		},
		Wall: func() time.Time {
			n.mu.Lock()
			defer n.mu.Unlock()
			return time.Now().Add(n.slept)
		},
	})
	if err != nil {
		return err
	}
	n.Gossip, n.Health = g, health.New(n.Roster, n)
	return nil
}

// Kill ends a node without a goodbye, as kill -9 does.
func (n *Node) Kill() error {
	if n.Gossip == nil {
		return nil
	}
	n.Health.Close()
	err := n.Gossip.Close()
	n.Gossip, n.Health = nil, nil
	return err
}

// Doze lets the machine of a node have slept for a while just now: its wall clock went on and nothing else did.
func (n *Node) Doze(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.slept += d
}

// Woken is how long the node found it had slept, each time it did.
func (n *Node) Woken() []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.woken)
}

// Addr is where the node is.
func (n *Node) Addr() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}

// AddrPort is where it gossips.
func (n *Node) AddrPort() netip.AddrPort { return netip.AddrPortFrom(n.Addr(), GossipPort) }

// Move gives the node a new address; it has to notice by itself.
func (n *Node) Move(to netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.office.Net.Unplug(n.at, true)
	n.at = to
}

// Traffic is what the node sent and received since it began to listen, in bytes.
func (n *Node) Traffic() (sent, received int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.port.Sent.Load(), n.port.Received.Load()
}

// Ping implements health.Pinger: an authenticated stream reaches the node of that key or nobody.
func (n *Node) Ping(ctx context.Context, m roster.Member) error {
	n.mu.Lock()
	port := n.port
	n.mu.Unlock()
	timeout := time.Second
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	conn, err := n.office.Net.Dial(port, m.Gossip.String(), timeout)
	if err != nil {
		return err
	}
	return conn.Close()
}

// nodeNetwork makes the transports of a node.
type nodeNetwork struct{ node *Node }

func (n nodeNetwork) Listen(at netip.AddrPort) (memberlist.NodeAwareTransport, uint16, error) {
	port, err := n.node.office.Net.Listen(at)
	if err != nil {
		return nil, 0, err
	}
	n.node.mu.Lock()
	defer n.node.mu.Unlock()
	n.node.port = port
	return port, at.Port(), nil
}

// Knows reports whether the node has exactly these of the others as alive.
func (n *Node) Knows(others []*Node) bool {
	alive := n.Roster.Now().In(roster.Alive)
	want := make(map[peer.ID]bool, len(others))
	for _, o := range others {
		if o != n {
			want[o.ID] = true
		}
	}
	if len(alive) != len(want) {
		return false
	}
	for _, m := range alive {
		if !want[m.ID] {
			return false
		}
	}
	return true
}

// Until polls, in virtual time, until a claim holds, and says how long that took; false after limit.
func Until(limit time.Duration, holds func() bool) (time.Duration, bool) {
	const step = 100 * time.Millisecond
	for began := time.Now(); ; time.Sleep(step) {
		if holds() {
			return time.Since(began), true
		}
		if time.Since(began) >= limit {
			return limit, false
		}
	}
}
