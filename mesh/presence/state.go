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
	Strangers []discover.Stranger // other meshes on the same network
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
		s.Discovers, s.Hearing, s.Strangers = true, d.Hearing(), d.Strangers()
	}
	return s
}

// Started is when this Presence was opened.
func (p *Presence) Started() time.Time { return p.started }
