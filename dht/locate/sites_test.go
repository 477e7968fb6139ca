package locate_test

import (
	"slices"
	"testing"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// site makes n members at a site, numbered from first.
func site(name string, first, n int) []locate.Member {
	var all []locate.Member
	for i := range n {
		all = append(all, locate.Member{ID: peer.ID{byte(first + i)}, Site: name})
	}
	return all
}

// Everybody computes the same bridges, mains power first, and the next one takes over from who is gone.
func TestBridges(t *testing.T) {
	all := append(site("a", 1, 8), site("b", 20, 5)...)
	bridges := locate.Bridges("a", all)
	turned := slices.Clone(all)
	slices.Reverse(turned)
	if len(bridges) != locate.BridgesPerSite || !slices.Equal(bridges, locate.Bridges("a", turned)) {
		t.Fatalf("bridges %v, and %v in another order", bridges, locate.Bridges("a", turned))
	}
	for _, id := range bridges {
		if id[0] >= 20 {
			t.Errorf("%v speaks for a site it does not stand at", id)
		}
	}
	rest := slices.DeleteFunc(slices.Clone(all), func(m locate.Member) bool { return m.ID == bridges[0] })
	if next := locate.Bridges("a", rest); len(next) != locate.BridgesPerSite || next[0] != bridges[1] {
		t.Errorf("bridges %v, and %v when the first is gone", bridges, next)
	}
	for i := range all {
		all[i].Battery = slices.Contains(bridges, all[i].ID)
	}
	if next := locate.Bridges("a", all); slices.Contains(next, bridges[0]) || slices.Contains(next, bridges[1]) {
		t.Errorf("a member on battery speaks for its site: %v", next)
	}
	if one := locate.Bridges("c", append(all, site("c", 40, 1)...)); len(one) != 1 {
		t.Errorf("a site of one has %d bridges", len(one))
	}
}

// A node follows its own site and the bridges of others, and speaks for its site only to others.
func TestSites(t *testing.T) {
	all := slices.Concat(site("a", 1, 6), site("b", 20, 6), site("", 40, 6))
	at := func(i int, all []locate.Member) locate.Sites {
		others := locate.Only(func() []locate.Member { return slices.Delete(slices.Clone(all), i, i+1) })
		return locate.Sites{Self: func() locate.Member { return all[i] }, All: others}
	}
	speaking := map[string]int{}
	for i, m := range all {
		s := at(i, all)
		if n := len(s.Members()); n != 5+2*locate.BridgesPerSite || len(s.Near()) != 5 {
			t.Fatalf("node %d follows %d, %d of them near", i, n, len(s.Near()))
		}
		if site, far := s.Far(all[(i+1)%6].ID); far != (i >= 6) || site != "a" {
			t.Errorf("node %d: who stands at a is far %v, at %q", i, far, site)
		}
		if site, far := s.Far(peer.ID{99}); far || site != "" {
			t.Errorf("node %d: a stranger is far %v, at %q", i, far, site)
		}
		if s.Bridge() {
			speaking[m.Site]++
		}
	}
	for _, name := range []string{"a", "b", ""} {
		if speaking[name] != locate.BridgesPerSite {
			t.Errorf("%d members speak for site %q", speaking[name], name)
		}
	}
	for i := range 6 {
		if at(i, all[:6]).Bridge() {
			t.Errorf("node %d is a bridge though there is one site", i)
		}
	}
}
