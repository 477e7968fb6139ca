package simnet

import (
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/roster"
)

// sizer is what a node chooses its locator by, from its roster.
func sizer(n *Node) *locate.Sizer {
	return &locate.Sizer{Sites: locate.Sites{Self: func() locate.Member { return locate.Member{} }, All: locate.Only(func() []locate.Member {
		var members []locate.Member
		for _, m := range n.Roster.Now().In(roster.Alive) {
			members = append(members, locate.Member{ID: m.ID})
		}
		return members
	})}}
}

// TestKinds: when an office outgrows summaries all its nodes go over to the one-hop index, they stay there while a few are
// missing, and all come back when many have gone.
func TestKinds(t *testing.T) {
	office(t, locate.SummariesUpTo+2, func(t *testing.T, o *Office) {
		sizers := map[*Node]*locate.Sizer{}
		for _, n := range o.Nodes {
			sizers[n] = sizer(n)
		}
		find := func(nodes []*Node, by locate.Kind) func() bool {
			return func() bool {
				is := true
				for _, n := range nodes {
					is = sizers[n].Kind() == by && is
				}
				return is && all(nodes)()
			}
		}
		within(t, 15*time.Second, "the office has outgrown summaries", find(o.Nodes, locate.OneHop))
		rest := o.Nodes
		leave := func(count int) {
			for _, n := range rest[:count] {
				if err := n.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			rest = rest[count:]
		}
		leave(4)
		within(t, 15*time.Second, "a few are gone, and the index stays", find(rest, locate.OneHop))
		leave(5)
		within(t, 15*time.Second, "many are gone, and summaries are back", find(rest, locate.Summaries))
	})
}
