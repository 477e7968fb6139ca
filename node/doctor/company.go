package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of the questions about the mesh.
const (
	maxSkew   = 30 * time.Second // beyond it certificates and leases go wrong first for those who are behind
	echoFor   = 3 * time.Minute  // a beacon goes out every half minute
	dialTime  = 5 * time.Second
	dialOnce  = 8                  // peers asked to dial back at the same time
	maxStrain = 3                  // of gossip's own measure, 0 to 7
	renewSoon = 5 * 24 * time.Hour // certificates are renewed when ten days are left
	startTime = 10 * time.Second   // what a node takes to find the others
)

// Company is what a node knows of its mesh, and what can be asked of its peers.
type Company struct {
	Mesh, Name string         // of the mesh; of this node
	Expires    time.Time      // of this node's certificate
	Address    netip.AddrPort // told to others for gossip; zero: this machine has none they could reach
	Members    netip.AddrPort // where members connect
	Networks   []netip.Prefix // whose interfaces may be used; none: all
	Peers      []Peer         // who has left is not among them
	Strangers  []string       // other meshes on the same network
	Beacons    Beacons
	TCPOnly    error // the last probe that UDP did not bring and TCP did; nil: none lately
	Strain     int   // 0: gossip is well
	// DialBack lets a peer connect to this node.
	DialBack func(context.Context, Peer) (Dialed, error)
}

// Peer is another member.
type Peer struct {
	ID, Name string
	Alive    bool // counts on being asked
	Suspect  bool // gossip has it, and it does not answer this node
	Near     bool // its address is on a network of this machine
	Heard    bool // its own beacons are heard
	Reason   string
	Skew     time.Duration // its clock minus this node's; 0 when not known
}

// Beacons is what is known of multicast.
type Beacons struct {
	On     bool      // told and listened for, as configured
	Fault  error     // why they cannot be; nil: they can
	Echo   time.Time // this node heard its own last; zero: never
	Others time.Time // it heard somebody else's
	Since  time.Time // of the node's start
}

// Dialed is what came of a peer's attempt to connect to this node.
type Dialed struct {
	At      netip.AddrPort
	Reached bool
	Failure string
}

// checks lists the questions, roots first: without an address there is nothing to ask of others, and
// when nobody at all is in sight, the cause is one and not one for each of them.
func (c *Company) checks() []Check {
	const membership, address, company = "mesh membership", "mesh address", "members in sight"
	return []Check{
		one(membership, nil, func() Finding { return c.membership(time.Now()) }),
		one(address, nil, c.address),
		one("multicast", []string{address}, func() Finding { return c.multicast(time.Now()) }),
		one("other meshes", []string{address}, c.strangers),
		one("names of members", nil, c.names),
		one(company, []string{membership, address}, c.sight),
		one("gossip over UDP", []string{company}, c.packets),
		one("clocks of members", []string{company}, c.clocks),
		{"connections from members", []string{company}, c.dialBack},
	}
}

// membership judges this node's own certificate: with one that has ended it is a stranger to everybody.
func (c *Company) membership(now time.Time) Finding {
	until := c.Expires.Format(time.DateOnly)
	switch left := c.Expires.Sub(now); {
	case left <= 0:
		return failed("buildmesh invite on a steward's node, then buildmesh leave and buildmesh join CODE here",
			"this node's certificate for mesh %s ended on %s, so nobody lets it in", c.Mesh, until)
	case left < renewSoon:
		return warning("buildmesh members, and start the node of one who is a steward", "this node's certificate ends on %s, and no steward was there to renew it", until)
	}
	return ok("in mesh %s until %s", c.Mesh, until)
}

// address judges the interface that was chosen by route.
func (c *Company) address() Finding {
	switch a := c.Address.Addr(); {
	case !a.IsValid() && len(c.Networks) > 0:
		return failed("ip address, then --set mesh.networks=NETWORK/BITS of one of them",
			"no address of this machine is in mesh.networks = %v", c.Networks)
	case !a.IsValid():
		return failed("ip address, then connect to the network", "this machine has no address that others could reach")
	case a.IsLoopback():
		return ok("%v: only nodes on this machine can be members", c.Address)
	}
	return ok("gossip at %v, members connect to port %d", c.Address, c.Members.Port())
}

// What is said of multicast with a node and without one.
const (
	fixMulticast = "sudo ufw allow 8984/udp, or name a member with --set mesh.peers=IP:PORT; a mesh joined by code works without"
	deaf         = "beacons cannot be sent or heard: %v"
	discoverOff  = "off; members are found by the join code and the roster"
)

// multicast judges by this node's own beacon, which its system gives back to it.
func (c *Company) multicast(now time.Time) Finding {
	b := c.Beacons
	switch {
	case !b.On:
		return ok(discoverOff)
	case b.Fault != nil:
		return warning(fixMulticast, deaf, b.Fault)
	case b.Echo.IsZero() && now.Sub(b.Since) < 5*time.Second:
		return ok("just begun")
	case now.Sub(b.Echo) > echoFor:
		return warning(fixMulticast, "this node does not hear its own beacon: others cannot find it by themselves")
	case b.Others.IsZero():
		return ok("own beacon heard, and nobody else's")
	}
	return ok("own beacon heard, and those of others")
}

// strangers names the other meshes. Alone beside one, a node is probably meant to be in it.
func (c *Company) strangers() Finding {
	if len(c.Strangers) == 0 {
		return ok("none heard")
	}
	list := strings.Join(c.Strangers, ", ")
	if len(c.Peers) == 0 {
		return warning("buildmesh invite on a node of it, then buildmesh join CODE here", "this node is alone in %s, beside %s", c.Mesh, list)
	}
	return ok("%s, left alone", list)
}

// names judges whether people can tell members apart.
func (c *Company) names() Finding {
	seen := map[string]int{c.Name: 1}
	var twice []string
	for _, p := range c.Peers {
		if seen[p.Name]++; seen[p.Name] == 2 {
			twice = append(twice, p.Name)
		}
	}
	if len(twice) > 0 {
		slices.Sort(twice)
		return warning("--set node.name=NAME on one of them; its next certificate carries it", "more than one member is called %s", strings.Join(twice, ", "))
	}
	return ok("no two are the same")
}

// sight judges whether anybody is there at all and, if not, what may stand between. Members that are switched off
// look like ones that cannot be reached, unless their beacons are heard or others far away answer.
func (c *Company) sight() Finding {
	alive, suspect, near, nearAlive, heard := 0, 0, 0, 0, 0
	for _, p := range c.Peers {
		switch {
		case p.Alive:
			alive++
		case p.Suspect:
			suspect++
		}
		if p.Near {
			near++
		}
		if p.Near && p.Alive {
			nearAlive++
		}
		if p.Heard && !p.Alive {
			heard++
		}
	}
	switch {
	case len(c.Peers) == 0:
		return ok("no other members are known")
	case heard > 0 && nearAlive == 0:
		return failed(fmt.Sprintf("sudo ufw allow %d/tcp; sudo ufw allow %d; here and there", c.Members.Port(), c.Address.Port()),
			"beacons of %d members are heard, and none near takes a connection: a firewall", heard)
	case near > 1 && nearAlive == 0 && alive > 0:
		return warning("a cable or another wireless network, or have client isolation turned off at the access point",
			"members elsewhere answer, and none of the %d on this network: the access point may keep its clients apart", near)
	case alive > 0 || suspect > 0:
		return ok("%d alive, %d suspect, %d gone", alive, suspect, len(c.Peers)-alive-suspect)
	case time.Since(c.Beacons.Since) < startTime:
		return ok("just begun")
	}
	return warning("buildmesh peers; if they are on, put the machines on one network, not a guest's; until then this node works alone",
		"none of %d members answers: they are off, or this network keeps its machines apart (client isolation)", len(c.Peers))
}

// packets judges whether UDP passes.
func (c *Company) packets() Finding {
	switch {
	case c.TCPOnly != nil:
		return warning(fmt.Sprintf("sudo ufw allow %d/udp here and there; it works over TCP, slower", c.Address.Port()), "UDP is blocked but TCP is well: %v", c.TCPOnly)
	case c.Strain >= maxStrain:
		return warning("buildmesh status; others may take this node for dead while it is this busy", "this node is late with its own answers")
	case len(c.Peers) == 0:
		return ok("nobody to hear from")
	}
	return ok("probes are answered")
}

// clocks judges the members' against this node's. When most are off the same way, this one is.
func (c *Company) clocks() Finding {
	var off []string
	here := 0
	for _, p := range c.Peers {
		if p.Skew > maxSkew || p.Skew < -maxSkew {
			off = append(off, fmt.Sprintf("%s by %v", p.Name, p.Skew.Round(time.Second)))
		}
		if p.Alive {
			here++
		}
	}
	const fix = "timedatectl set-ntp true"
	switch {
	case len(off) > 1 && 2*len(off) > here:
		return warning(fix+" here", "this node's clock is wrong, going by %d of %d members, such as %s", len(off), here, off[0])
	case len(off) > 0:
		return warning(fix+" there", "clocks that differ from this node's: %s", strings.Join(off, ", "))
	}
	return ok("within %v of this node's", maxSkew)
}

// dialBack lets every peer in sight connect to this node, some at a time.
func (c *Company) dialBack(ctx context.Context) []Finding {
	var asked []Peer
	for _, p := range c.Peers {
		if p.Alive || p.Suspect {
			asked = append(asked, p)
		}
	}
	if len(asked) == 0 || c.DialBack == nil {
		return []Finding{ok("nobody to ask")}
	}
	found := make([]Finding, len(asked))
	turn := make(chan struct{}, dialOnce)
	var asking sync.WaitGroup
	for i, p := range asked {
		turn <- struct{}{}
		asking.Go(func() {
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeout(ctx, dialTime)
			defer cancel()
			found[i] = c.dialedBy(ctx, p)
		})
	}
	asking.Wait()
	faults := slices.DeleteFunc(found, func(f Finding) bool { return f.Verdict == OK })
	if well := len(asked) - len(faults); well > 0 {
		faults = append([]Finding{ok("%d of %d connect to this node", well, len(asked))}, faults...)
	}
	return faults
}

// dialedBy asks one peer.
func (c *Company) dialedBy(ctx context.Context, p Peer) Finding {
	d, err := c.DialBack(ctx, p)
	port := fmt.Sprintf("%d/tcp", c.Members.Port())
	switch {
	case err != nil:
		return warning("buildmesh doctor on "+p.Name+", and a look at its firewall", "%s cannot be asked from here: %v", p.Name, err)
	case !d.Reached:
		return warning("sudo ufw allow "+port, "%s is reached from here but cannot connect to %v: %s", p.Name, d.At, d.Failure)
	}
	return ok("")
}
