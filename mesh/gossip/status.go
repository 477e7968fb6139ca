package gossip

import (
	"net/netip"
	"time"
)

// Status is what there is to say of gossip at one moment.
type Status struct {
	Address netip.AddrPort // told to others; zero: this machine has none they could reach
	Alive   int            // members gossip calls alive, without this node
	Epoch   uint64         // whose key is used
	Keys    int            // held; more than one while they change
	Strain  int            // 0: well; up to 7: this node is late with its own answers
	Turned  int64          // streams turned away, because there were too many, since gossip began at Address

	Refused  Event // the last message of somebody who is no member
	Conflict Event // the last time one start was said to be at two addresses
	Join     Event // the last attempt to reach an address that failed
	Own      Event // the last trouble with this node's own card or listener
	TCPOnly  Event // the last member that answered over TCP after UDP failed
}

// Event is the last of its kind; without Err there was none.
type Event struct {
	Err error
	At  time.Time
}

// Status tells how gossip is.
func (g *Gossip) Status() Status {
	g.mu.Lock()
	s := Status{Address: g.at, Alive: len(g.cards), Epoch: g.ring.use, Keys: len(g.ring.keys),
		Refused: g.report.refused, Conflict: g.report.conflict, Join: g.report.join, Own: g.report.own,
		TCPOnly: g.report.tcpOnly}
	list, gate := g.list, g.gate
	g.mu.Unlock()
	if list == nil {
		s.Address = netip.AddrPort{}
		return s
	}
	s.Strain, s.Turned = list.GetHealthScore(), gate.turned.Load()
	return s
}
