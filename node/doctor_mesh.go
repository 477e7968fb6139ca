package node

import (
	"context"
	"net/netip"
	"time"

	"github.com/buildmesh/buildmesh/mesh/discover"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/node/doctor"
)

// company is the mesh in the doctor's words.
func (m *meshed) company(networks []netip.Prefix, now time.Time) *doctor.Company {
	state := m.presence.State()
	c := &doctor.Company{
		Mesh: m.seat.Charter().Name, Name: m.seat.Certificate().Name, Expires: m.seat.Certificate().Expires, Address: state.Gossip.Address, Members: m.transport.Listening(),
		Networks: networks, Strain: state.Gossip.Strain, DialBack: m.dialedBack,
		Beacons: doctor.Beacons{On: state.Discovers || state.Deaf != nil, Fault: state.Deaf,
			Echo: state.Hearing.Echo, Others: state.Hearing.Others, Since: m.presence.Started()},
	}
	if c.Beacons.Fault == nil {
		c.Beacons.Fault = state.Hearing.Fault
	}
	if only := state.Gossip.TCPOnly; only.Err != nil && now.Sub(only.At) < troubleFor {
		c.TCPOnly = only.Err
	}
	for _, s := range state.Strangers {
		c.Strangers = append(c.Strangers, s.Mesh)
	}
	heard := make(map[peer.ID]bool)
	for _, f := range state.Finds {
		heard[f.Peer] = true
	}
	for _, one := range m.presence.Roster.Now().Members {
		if one.State == roster.Left {
			continue
		}
		p := doctor.Peer{ID: one.ID.String(), Name: one.Name, Alive: one.State == roster.Alive,
			Suspect: one.State == roster.Suspect, Heard: heard[one.ID], Reason: one.Reason}
		_, p.Near = discover.Link(one.Gossip.Addr())
		if heard, found := m.presence.Book.Get(one.ID); found {
			p.Skew = heard.Skew
		}
		c.Peers = append(c.Peers, p)
	}
	return c
}

// dialedBack lets a peer connect to this node.
func (m *meshed) dialedBack(ctx context.Context, p doctor.Peer) (doctor.Dialed, error) {
	id, err := peer.Parse(p.ID)
	if err != nil {
		return doctor.Dialed{}, err
	}
	r, err := m.transport.DialBack(ctx, id)
	return doctor.Dialed{At: r.Address, Reached: r.Reached, Failure: r.Failure}, err
}
