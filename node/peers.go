package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/roster"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// Bounds beyond which something is worth mending.
const (
	maxSkew    = 30 * time.Second
	troubleFor = 10 * time.Minute // how long ago trouble still counts
	highStrain = 3                // of gossip's own measure, 0 to 7
)

// peersAnswers is the node as the command line asks it about the others.
type peersAnswers struct {
	controlv1.UnimplementedPeersServer
	node *Node
}

// Peers implements controlv1.PeersServer.
func (a peersAnswers) Peers(context.Context, *controlv1.PeersRequest) (*controlv1.PeersResponse, error) {
	if a.node.mesh == nil {
		return nil, status.Error(codes.FailedPrecondition, "this node takes part in no mesh: mesh.enabled is false")
	}
	return a.node.peers(time.Now()), nil
}

// peers is the company as the control API tells of it.
func (m *meshed) peers(now time.Time) *controlv1.PeersResponse {
	state := m.presence.State()
	answer := &controlv1.PeersResponse{Mesh: m.seat.Charter().Name}
	if state.Gossip.Address.IsValid() {
		answer.GossipAddress = state.Gossip.Address.String()
	}
	for _, one := range m.presence.Roster.Now().Members {
		answer.Peers = append(answer.Peers, m.peer(one))
	}
	slices.SortStableFunc(answer.Peers, func(a, b *controlv1.Peer) int {
		if a.State != b.State {
			return stateRank(a.State) - stateRank(b.State)
		}
		return slices.Compare([]byte(a.Name), []byte(b.Name))
	})
	for _, s := range state.Strangers {
		answer.Strangers = append(answer.Strangers, s.Mesh)
	}
	answer.Problems = m.problems(answer.Peers, now)
	return answer
}

// peers is the company as the control API tells of it, with what is wrong about its content.
func (n *Node) peers(now time.Time) *controlv1.PeersResponse {
	answer := n.mesh.peers(now)
	if n.content == nil {
		return answer
	}
	answer.Problems = append(answer.Problems, n.content.problems()...)
	return answer
}

// meshStatus is the mesh in numbers.
func (n *Node) meshStatus(now time.Time) *controlv1.MeshStatus {
	all := n.peers(now)
	s := &controlv1.MeshStatus{Name: all.Mesh, Problems: all.Problems}
	if n.machine != nil {
		s.Compared, s.Disputed = n.machine.auditor.compared.Load(), n.machine.auditor.disputed.Load()
	}
	for _, p := range all.Peers {
		switch p.State {
		case roster.Alive.String():
			s.Alive++
		case roster.Suspect.String():
			s.Suspect++
		case roster.Dead.String():
			s.Dead++
		}
	}
	return s
}

// stateRank sorts states of peers, best first.
func stateRank(state string) int {
	return slices.Index([]string{roster.Alive.String(), roster.Suspect.String(), roster.Dead.String(), roster.Left.String()}, state)
}

// peer is one member.
func (m *meshed) peer(one roster.Member) *controlv1.Peer {
	p := &controlv1.Peer{
		Name: one.Name, PeerId: one.ID.String(), Site: one.Site, State: one.State.String(), Reason: one.Reason,
		Since: timestamppb.New(one.Since), Connected: m.transport.Connected(one.ID),
	}
	if !one.Seen.IsZero() {
		p.Seen = timestamppb.New(one.Seen)
	}
	if one.Control.IsValid() {
		p.Address = one.Control.String()
	}
	if heard, found := m.presence.Book.Get(one.ID); found {
		p.Facts = factsOf(heard)
	}
	return p
}

// factsOf are a member's facts as the control API gives them.
func factsOf(h facts.Heard) *controlv1.PeerFacts {
	return &controlv1.PeerFacts{
		Version: h.Version, OsFamily: h.OSFamily, Isa: h.ISA, Cores: h.Cores, CoresFree: h.CoresFree,
		MemoryBytes: h.Memory, MemoryFreeBytes: h.MemoryFree, State: h.State.String(), Reason: h.Reason,
		Fingerprint: h.Fingerprint, ClockAhead: durationpb.New(h.Skew), Network: h.Network.String(),
	}
}

// problems are what is not as it should be, the worst last, each with what mends it.
func (m *meshed) problems(peers []*controlv1.Peer, now time.Time) []*controlv1.Problem {
	var all []*controlv1.Problem
	add := func(fix, format string, args ...any) {
		all = append(all, &controlv1.Problem{Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	names := map[string]int{m.seat.Certificate().Name: 1}
	for _, p := range peers {
		if p.State == roster.Left.String() {
			continue
		}
		if names[p.Name]++; names[p.Name] == 2 {
			add("buildmesh config show node.name", "more than one member is called %s", p.Name)
		}
		if skew := p.Facts.GetClockAhead().AsDuration(); skew > maxSkew || skew < -maxSkew {
			add("timedatectl set-ntp true", "the clocks of %s and of this node differ by %v", p.Name, skew.Round(time.Second))
		}
		if p.State == roster.Suspect.String() {
			add("buildmesh doctor", "%s is seen by others but cannot be reached from here: %s", p.Name, p.Reason)
		}
	}
	state := m.presence.State()
	if state.Deaf != nil {
		add("buildmesh doctor", "others cannot find this node by themselves: %v", state.Deaf)
	}
	if state.Gossip.Strain >= highStrain {
		add("buildmesh status", "this node is late with its own answers; others may take it for dead")
	}
	if own := state.Gossip.Own; own.Err != nil && now.Sub(own.At) < troubleFor {
		add("buildmesh doctor", "gossip: %v", own.Err)
	}
	if !state.Gossip.Address.IsValid() {
		add("ip address", "this machine has no address that others could reach")
	}
	return all
}
