package node

import (
	"time"

	"github.com/buildmesh/buildmesh/dht/distance"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
)

// meshMembers is the roster as content asks for it.
type meshMembers struct{ m *meshed }

// Members implements locate.Members.
func (m meshMembers) Members() []locate.Member {
	now := time.Now()
	var out []locate.Member
	for _, one := range m.m.presence.Roster.Now().In(roster.Alive) {
		heard, _ := m.m.presence.Book.Get(one.ID)
		out = append(out, locate.Member{ID: one.ID, Alive: now.Sub(one.Since), Site: one.Site, Battery: heard.Battery})
	}
	return out
}

// sites is the mesh as seen from where this node stands, which is what its certificate says: the others go by that too.
func (n *Node) sites() locate.Sites {
	self := func() locate.Member {
		power, _ := n.lending.governor.Facts()
		return locate.Member{ID: n.identity.ID(), Site: n.mesh.seat.Certificate().Site, Battery: power.OnBattery}
	}
	return locate.Sites{Self: self, All: meshMembers{n.mesh}}
}

// brought tells how far other sites are by what transfers from there take.
func brought(sites locate.Sites, distances *distance.Table) func(peer.ID, int64, time.Duration) {
	return func(id peer.ID, bytes int64, took time.Duration) {
		if site, far := sites.Far(id); far {
			distances.Brought(site, bytes, took)
		}
	}
}

// expected is what running an action of a mnemonic would cost, as far as that is known.
func (n *Node) expected(mnemonic string) lookup.Cost {
	if mnemonic == "" || n.machine == nil || n.machine.leasing == nil {
		return lookup.Cost{}
	}
	e := n.machine.leasing.initiator.Estimate(mnemonic)
	return lookup.Cost{Run: e.Median, Bytes: e.OutputBytes}
}

// indexed is over whom the one-hop index is spread: a site, or the whole mesh if results are found by it alone.
func indexed(wish string, sites locate.Sites) locate.Members {
	if wish == "onehop" {
		return sites.All
	}
	return locate.Only(sites.Near)
}

// kindOf gives the kind of the locator in use: the one the configuration names, else what fits the mesh's size.
func kindOf(wish string, sites locate.Sites) func() locate.Kind {
	named := map[string]locate.Kind{"summary": locate.Summaries, "onehop": locate.OneHop, "kad": locate.Kad}
	if kind, is := named[wish]; is {
		return func() locate.Kind { return kind }
	}
	return (&locate.Sizer{Sites: sites}).Kind
}
