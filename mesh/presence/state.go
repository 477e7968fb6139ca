package presence

import (
	"time"

	"github.com/buildmesh/buildmesh/mesh/discover"
	"github.com/buildmesh/buildmesh/mesh/gossip"
)

// State is what there is to say of a node's company, beside the roster.
type State struct {
	Gossip    gossip.Status
	Discovers bool // beacons are told and heard
	Deaf      error
	Hearing   discover.Hearing
	Finds     []discover.Find     // nodes of this mesh that were heard on the same network
	Strangers []discover.Stranger // other meshes there
}

// State tells how this node gets on with the others.
func (p *Presence) State() State {
	p.mu.Lock()
	g, d, deaf := p.gossip, p.discover, p.deaf
	p.mu.Unlock()
	s := State{Deaf: deaf}
	if g != nil {
		s.Gossip = g.Status()
	}
	if d != nil {
		s.Discovers, s.Hearing, s.Finds, s.Strangers = true, d.Hearing(), d.Finds(), d.Strangers()
	}
	return s
}

// Started is when this Presence was opened.
func (p *Presence) Started() time.Time { return p.started }
