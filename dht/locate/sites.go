package locate

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// BridgesPerSite is how many members speak for a site to the others.
const BridgesPerSite = 2

// Bridges gives the members that speak for a site: those on mains power first, and among equals by rendezvous
// hashing of the site's name. Who sees the same members gives the same ones.
func Bridges(site string, members []Member) []peer.ID {
	type scored struct {
		Member
		score [sha256.Size]byte
	}
	var all []scored
	for _, m := range members {
		if m.Site == site {
			all = append(all, scored{m, sha256.Sum256(append([]byte(site+"\x00"), m.ID[:]...))})
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		if a.Battery != b.Battery {
			if b.Battery {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.score[:], b.score[:])
	})
	var ids []peer.ID
	for _, m := range all[:min(len(all), BridgesPerSite)] {
		ids = append(ids, m.ID)
	}
	return ids
}

// Sites is the mesh as seen from one of its sites. A name of a site that is empty is one like any other.
type Sites struct {
	Self func() Member // this node
	All  Members       // everybody else
}

// Members implements Members: whose summaries this node follows, which is everybody at its own site and the
// bridges of the others.
func (s Sites) Members() []Member {
	all := s.All.Members()
	own := s.Self().Site
	bridges := map[string][]peer.ID{}
	return slices.DeleteFunc(slices.Clone(all), func(m Member) bool {
		if m.Site == own {
			return false
		}
		if bridges[m.Site] == nil {
			bridges[m.Site] = Bridges(m.Site, all)
		}
		return !slices.Contains(bridges[m.Site], m.ID)
	})
}

// Near is who stands at this node's site.
func (s Sites) Near() []Member {
	own := s.Self().Site
	return slices.DeleteFunc(slices.Clone(s.All.Members()), func(m Member) bool { return m.Site != own })
}

// Bridge reports whether this node speaks for its site to another one.
func (s Sites) Bridge() bool {
	return slices.Contains(s.Bridges(), s.Self().ID)
}

// Bridges gives those who speak for this node's site, this node too if it is one; none where there is no other site.
func (s Sites) Bridges() []peer.ID {
	self, all := s.Self(), s.All.Members()
	if !slices.ContainsFunc(all, func(m Member) bool { return m.Site != self.Site }) {
		return nil
	}
	return Bridges(self.Site, append(slices.Clip(all), self))
}

// Far tells at which site a member stands, if that is another one than this node's.
func (s Sites) Far(id peer.ID) (site string, far bool) {
	own := s.Self().Site
	for _, m := range s.All.Members() {
		if m.ID == id {
			return m.Site, m.Site != own
		}
	}
	return "", false
}

// Only is some of the members.
type Only func() []Member

// Members implements Members.
func (o Only) Members() []Member { return o() }
