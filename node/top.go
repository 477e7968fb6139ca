package node

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

const (
	// occupancyWait is how long a member may take to tell who uses it.
	occupancyWait = 800 * time.Millisecond
	// occupancyAtOnce is how many members are asked at a time.
	occupancyAtOnce = 32
)

// Jobs implements controlv1.JournalServer.
func (a journalAnswers) Jobs(context.Context, *controlv1.JobsRequest) (*controlv1.JobsResponse, error) {
	return a.node.jobs(), nil
}

// Top implements controlv1.JournalServer.
func (a journalAnswers) Top(ctx context.Context, _ *controlv1.TopRequest) (*controlv1.TopResponse, error) {
	return a.node.top(ctx), nil
}

// heardOf are the members that are alive, by name, and what they say of themselves.
func (n *Node) heardOf() (members []roster.Member, heard []facts.Heard) {
	if n.mesh == nil {
		return nil, nil
	}
	members = slices.Clone(n.mesh.presence.Roster.Now().In(roster.Alive))
	slices.SortStableFunc(members, func(a, b roster.Member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
	heard = make([]facts.Heard, len(members))
	for i, m := range members {
		heard[i], _ = n.mesh.presence.Book.Get(m.ID) // one that was not heard of lends nothing yet
	}
	return members, heard
}

// jobs counts the slots that actions of this node's clients may have.
func (n *Node) jobs() *controlv1.JobsResponse {
	answer := &controlv1.JobsResponse{}
	own := &controlv1.Capacity{Name: n.config.Node.Name}
	if n.machine == nil {
		own.Excluded = "this node runs no actions"
	} else {
		own.Cores = n.machine.offer.Cores
	}
	same, all := own.Cores, own.Cores
	answer.Machines = append(answer.Machines, own)
	members, heard := n.heardOf()
	for i, m := range members {
		c := n.capacity(m.Name, heard[i])
		answer.Machines = append(answer.Machines, c)
		if c.Excluded == "" {
			same += c.Cores
		}
		if c.Hermetic {
			all += c.Cores
		}
	}
	own.Hermetic = own.Excluded == ""
	answer.Jobs, answer.Hermetic = jobsFor(same), jobsFor(all)
	return answer
}

// capacity is what a member lends to this node's actions.
func (n *Node) capacity(name string, h facts.Heard) *controlv1.Capacity {
	c := &controlv1.Capacity{Name: name, Cores: h.Cores}
	common := func(isa string) bool { return slices.Contains(n.machine.offer.ISA, isa) }
	switch {
	case n.machine == nil:
		c.Excluded = "this node runs no actions"
	case h.State != facts.Ready:
		c.Excluded = standing(h.Facts)
	case h.OSFamily != n.machine.offer.OSFamily, !slices.ContainsFunc(h.ISA, common):
		c.Excluded = "has another platform: " + strings.Join(append([]string{h.OSFamily}, h.ISA...), " ")
	case h.Fingerprint == "", h.Fingerprint != n.machine.fingerprint.String():
		c.Excluded, c.Hermetic = "has other tools (host fingerprint)", true
	default:
		c.Hermetic = true
	}
	return c
}

// jobsFor is how many actions should be under way for a number of cores: one on each, and a quarter more, at least two,
// that are being prepared or fetched meanwhile.
func jobsFor(cores float64) int64 {
	slots := math.Floor(min(cores, 1<<20))
	return int64(slots + max(2, math.Ceil(slots/4)))
}

// top is who runs what for whom now.
func (n *Node) top(ctx context.Context) *controlv1.TopResponse {
	answer := &controlv1.TopResponse{At: timestamppb.Now(), Machines: []*controlv1.Machine{n.ownMachine()}}
	if n.machine != nil {
		answer.Flights, answer.Queued, answer.Actions = n.machine.underWay(), int64(n.machine.room().Waiting), n.machine.counts.status()
	}
	if n.mesh == nil {
		return answer
	}
	answer.Mesh = n.mesh.seat.Charter().Name
	traffic := n.mesh.transport.Traffic()
	answer.BytesIn, answer.BytesOut = traffic.In, traffic.Out
	members, heard := n.heardOf()
	others := make([]*controlv1.Machine, len(members))
	ctx, cancel := context.WithTimeout(ctx, occupancyWait)
	defer cancel()
	free := make(chan struct{}, occupancyAtOnce)
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			others[i] = n.otherMachine(ctx, m, heard[i])
		})
	}
	asking.Wait()
	answer.Machines = append(answer.Machines, others...)
	return answer
}

// ownMachine is this machine and who uses it.
func (n *Node) ownMachine() *controlv1.Machine {
	own := &controlv1.Machine{Name: n.config.Node.Name, PeerId: n.identity.ID().String(), Self: true, Answered: true}
	if n.machine == nil {
		own.State = "runs no actions"
		return own
	}
	room := n.machine.room()
	own.Cores, own.Free = room.Cores, max(room.FreeCores, 0)
	if n.machine.leasing != nil {
		own.State = standing(n.facts())
	}
	if n.machine.leasing == nil {
		if room.Running > 0 {
			own.Shares = []*controlv1.Share{{Name: own.Name, PeerId: own.PeerId, Cores: own.Cores - own.Free, Actions: int64(room.Running)}}
		}
		return own
	}
	own.Shares = n.shares(n.machine.leasing.executor.Holders())
	return own
}

// otherMachine is a member and who uses it, as it says itself.
func (n *Node) otherMachine(ctx context.Context, m roster.Member, h facts.Heard) *controlv1.Machine {
	one := &controlv1.Machine{Name: m.Name, PeerId: m.ID.String(), Cores: h.Cores, Free: min(h.CoresFree, h.Cores), State: standing(h.Facts)}
	holders, err := n.occupancy(ctx, m.ID, h.Cores)
	if err != nil {
		return one
	}
	one.Answered, one.Shares = true, n.shares(holders)
	return one
}

// standing is in which state a member lends and why, the same for this node and for others; empty when it lends all it has.
func standing(f facts.Facts) string {
	switch {
	case f.State == facts.Ready && f.Reason == "":
		return ""
	case f.State == facts.Ready: // less than all
		return human.State("throttled", f.Reason)
	case f.State == facts.CacheOnly:
		return cmp.Or(f.Reason, f.State.String())
	}
	return human.State(f.State.String(), f.Reason)
}

// occupancy asks a member who uses it.
func (n *Node) occupancy(ctx context.Context, id peer.ID, cores float64) ([]lease.Holder, error) {
	conn, err := n.mesh.transport.Control(ctx, id)
	if err != nil {
		return nil, err
	}
	answer, err := leasev1.NewLeaseClient(conn).Occupancy(ctx, &leasev1.OccupancyRequest{})
	if err != nil {
		return nil, err
	}
	return lease.HoldersFrom(answer, cores), nil
}

// shares are holders as the control API gives them.
func (n *Node) shares(holders []lease.Holder) (all []*controlv1.Share) {
	for _, h := range holders {
		all = append(all, &controlv1.Share{Name: n.nameOf(h.Peer), PeerId: h.Peer.String(), Cores: h.Cores, Actions: int64(h.Actions)})
	}
	return all
}
