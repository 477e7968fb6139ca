package place

import (
	"fmt"
	"strings"
	"unique"

	"github.com/buildmesh/buildmesh/exec/platform"
)

// match is where Works of one shape may run.
type match struct {
	groups []*group
	self   bool
	err    error // when there are no groups: what those that come closest miss
}

// shape is equal for Works that fit the same peers. Whoever goes through many Works compares handles: the text of each would be
// far away in memory.
type shape = unique.Handle[string]

// shapeOf gives the shape of an item.
func shapeOf(it *item) shape {
	p := it.Platform
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %q %s %s %g %d", it.Class, p.OSFamily, p.ISA, p.Pool, p.Fingerprint, p.Cores, it.memory)
	fmt.Fprintf(&b, " %t %t %t %q %q %q %q %t", p.UID != nil, p.GID != nil, p.Network, p.ContainerImage, p.ChrootRoot, p.RemoteAPIsSocket, p.InputRoot, p.Local)
	b.WriteString(it.Mnemonic) // decides what is reserved
	return unique.Make(b.String())
}

// match gives the groups that it may run in.
func (c *Core) match(it *item) match {
	if m, known := c.matches[it.shape]; known {
		return m
	}
	m := match{}
	request := it.Platform
	request.MemoryBytes = it.memory
	if c.self != nil {
		m.err = request.Match(c.self.Offer)
		m.self = m.err == nil
	}
	local := it.Class == Local || request.Local
	otherTools := false
	for _, g := range c.order {
		err := request.Match(g.offer)
		switch {
		case c.self != nil && g == c.self.group && m.self:
			m.groups = append(m.groups, g)
		case local:
		case err == nil && it.Class == Fingerprinted && !c.comparable(g):
			otherTools = true
		case err == nil:
			m.groups = append(m.groups, g)
		default:
			m.err = platform.Nearer(m.err, err)
		}
	}
	if len(m.groups) == 0 && (m.err == nil || otherTools) {
		m.err = &platform.MismatchError{Property: "host-fingerprint", Asked: "that of this machine", Offered: []string{"others only"}}
	}
	if len(c.matches) >= 4096 {
		clear(c.matches)
	}
	c.matches[it.shape] = m
	return m
}

// comparable reports whether results made by the group's tools are as good as ours.
func (c *Core) comparable(g *group) bool {
	return c.self != nil && g.offer.Fingerprint != "" && g.offer.Fingerprint == c.self.Offer.Fingerprint
}
