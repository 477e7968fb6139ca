package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/exec/merge"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/node/power"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// What a machine tells others it can do, beside running ordinary actions.
const (
	abilityUsers   = "user-ids"
	abilityNetwork = "network"
	abilityChroot  = "chroot-root"
	abilityWhole   = "whole-root"
	abilityImages  = "images"
)

// leasing is the part of a node that runs others' actions and has its own run by others.
type leasing struct {
	node      *Node
	machine   *machine
	executor  *lease.Executor
	initiator *lease.Initiator
	merger    *merge.Merger
	ready     atomic.Bool // initiator is set
}

// openLeasing makes the placer of a node that belongs to a mesh: its own actions run here or at a member.
func (n *Node) openLeasing(m *machine, runner *run.Runner) *leasing {
	l := &leasing{node: n, machine: m}
	content, receipts := leaseContent{n}, leaseReceipts{n}
	limits := action.Limits{MaxTimeout: n.config.Exec.MaxTimeout}
	l.executor = lease.NewExecutor(lease.ExecutorOptions{
		Self: n.identity.ID(), Book: lease.NewBook(m.offer.Cores, m.offer.MemoryBytes, lease.Options{Self: n.identity.ID(), NewID: lease.NewID}),
		Run: guestExecutor{countedExecutor{runner.Guests(runBlobs{n.shared()}), m.counts}, n.lending}, Blobs: n.shared(), Content: content, Receipts: receipts,
		Match: m.here, Caller: leaseCaller, Status: reapi.Status, Limits: limits,
		Changed: func() {
			if l.ready.Load() {
				l.initiator.Refresh()
			}
		},
	})
	l.initiator = lease.NewInitiator(lease.InitiatorOptions{
		Self: n.identity.ID(), Epoch: uint64(time.Now().UnixNano()), Executor: l.executor, Run: countedExecutor{ownExecutor{n, runner.Storing}, m.counts},
		Spare: countedExecutor{ownExecutor{n, runner.Guests}, m.counts}, Network: n.mesh.transport, Blobs: n.store, Content: content, Receipts: receipts, Auditor: m.auditor, Class: l.class,
		Place: place.Options{Explain: true}, Name: n.nameOf, History: n.history, MaxTimeout: n.config.Exec.MaxTimeout,
	}, place.Peer{Name: n.config.Node.Name, Offer: m.offer, Speed: 1})
	l.ready.Store(true)
	l.executor.Register(n.mesh.transport.ControlServer())
	l.openMerging()
	n.onClose("leases", func() error {
		l.initiator.Close()
		l.executor.Close()
		return nil
	})
	return l
}

// openPeers follows the other members, from when everything else of the mesh is open.
func (n *Node) openPeers(context.Context) error {
	if n.machine == nil || n.machine.leasing == nil {
		return nil
	}
	l := n.machine.leasing
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { l.followRoster(ctx) })
	following.Go(func() { l.followFacts(ctx) })
	n.onClose("peers", func() error {
		cancel()
		following.Wait()
		return nil
	})
	n.mesh.seat.Watch(func(c member.Change) {
		for _, id := range c.Out {
			l.executor.Expel(id)
			l.gone(id)
		}
	})
	n.lending.leases.Store(l)
	l.lend(n.lending.governor.Status())
	at, _ := n.lending.governor.Facts()
	n.lendingLooked(at)
	return nil
}

// lend has the executor take as many guests as the owner allows now, and end those that must leave.
func (l *leasing) lend(s power.Status) {
	cores, why := s.Lent(l.machine.offer.Cores), s.Reason
	if !l.node.config.Lend.Enabled || !l.node.report.Tier.Guests() {
		cores, why = 0, ""
	}
	l.executor.Lend(cores, why)
	if s.Evict {
		l.executor.Evict(0)
	}
}

// class says where an action may run.
func (l *leasing) class(ctx context.Context, a *action.Action) place.Class {
	switch {
	case a.Platform.Local, l.node.content == nil, l.node.content.policy.Agree != 1, !l.node.report.Tier.Guests():
		return place.Local // nobody's result would be believed, or nobody could be given the action
	}
	if why, err := l.node.judge(ctx, a); why != share.Shared || err != nil {
		return place.Local
	}
	if l.node.content.receipts.Quarantined(l.resultKey(a)) {
		return place.Local // members disagree about it: nobody's word counts but one's own
	}
	switch {
	case a.WholeRoot, a.Platform.ContainerImage != "":
		return place.Hermetic
	}
	return place.Fingerprinted
}

// resultKey is where the mesh has the result of an action.
func (l *leasing) resultKey(a *action.Action) cid.Key {
	return l.node.content.company.Load().keyer.Result(a.Digest, leaseReceipts{l.node}.root(a))
}

// followRoster tells the initiator who is gone.
func (l *leasing) followRoster(ctx context.Context) {
	known := map[peer.ID]bool{}
	for version := uint64(0); ; {
		now, err := l.node.mesh.presence.Roster.Next(ctx, version)
		if err != nil {
			return
		}
		version = now.Version
		alive := map[peer.ID]bool{}
		for _, m := range now.In(roster.Alive) {
			alive[m.ID] = true
			if !known[m.ID] {
				known[m.ID] = true
				l.tell(m)
			}
		}
		for id := range known {
			if !alive[id] {
				delete(known, id)
				l.gone(id)
			}
		}
	}
}

// gone tells that a member left.
func (l *leasing) gone(id peer.ID) {
	l.initiator.Gone(id)
	l.merger.Gone(id)
}

// followFacts tells the initiator what members say of themselves, each thing once: in a busy mesh of many every one of them
// says something many times a second.
func (l *leasing) followFacts(ctx context.Context) {
	told := map[peer.ID]time.Time{}
	for version := uint64(0); ; {
		heard, next, err := l.node.mesh.presence.Book.Next(ctx, version)
		if err != nil {
			return
		}
		version = next
		for _, m := range l.node.mesh.presence.Roster.Now().In(roster.Alive) { // who becomes alive later, followRoster tells of
			if h, found := heard[m.ID]; found && !h.At.Equal(told[m.ID]) {
				told[m.ID] = h.At
				l.initiator.Peer(peerOf(m, h))
			}
		}
	}
}

// tell tells the initiator of one member, as far as its facts are known.
func (l *leasing) tell(m roster.Member) {
	if heard, found := l.node.mesh.presence.Book.Get(m.ID); found {
		l.initiator.Peer(peerOf(m, heard))
	}
}

// peerOf is a member as exec/place sees it.
func peerOf(m roster.Member, h facts.Heard) place.Peer {
	can := func(ability string) bool { return slices.Contains(h.Abilities, ability) }
	p := place.Peer{
		ID: m.ID, Name: m.Name, Speed: 1, FreeCores: h.CoresFree, FreeBytes: h.MemoryFree, At: h.At,
		Offer: platform.Offer{
			OSFamily: h.OSFamily, ISA: h.ISA, Cores: h.Cores, MemoryBytes: h.Memory, Pools: h.Pools, Fingerprint: h.Fingerprint,
			UserIDs: can(abilityUsers), Network: can(abilityNetwork), ChrootRoot: can(abilityChroot), WholeRoot: can(abilityWhole), Images: can(abilityImages),
		},
	}
	switch h.State {
	case facts.Ready:
		p.State = place.Open
	case facts.Draining:
		p.State = place.Draining
	default:
		p.State = place.Closed
	}
	return p
}

// abilities are what this machine can do for others.
func (m *machine) abilities() []string {
	var all []string
	for ability, can := range map[string]bool{
		abilityUsers: m.offer.UserIDs, abilityNetwork: m.offer.Network, abilityChroot: m.offer.ChrootRoot, abilityWhole: m.offer.WholeRoot, abilityImages: m.offer.Images,
	} {
		if can {
			all = append(all, ability)
		}
	}
	slices.Sort(all)
	return all
}

// elsewhere reports whether any member in sight fulfils a request that this machine does not for the reason here: nil, or what
// all of them together offer instead.
func (l *leasing) elsewhere(r platform.Request, here error) error {
	p := l.node.mesh.presence
	if p == nil {
		return here
	}
	for _, m := range p.Roster.Now().In(roster.Alive) {
		heard, found := p.Book.Get(m.ID)
		if !found {
			continue
		}
		err := r.Match(peerOf(m, heard).Offer)
		if err == nil {
			return nil
		}
		here = platform.Nearer(here, err)
	}
	return here
}

// leaseCaller tells the lease service who calls.
func leaseCaller(ctx context.Context) (peer.ID, error) {
	if id, known := transport.Caller(ctx); known {
		return id, nil
	}
	return peer.ID{}, status.Error(codes.Unauthenticated, "only members of the mesh are served")
}

// guestExecutor counts the actions of others that run here.
type guestExecutor struct {
	flight.Executor
	lending *lending
}

// Execute implements flight.Executor.
func (g guestExecutor) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	g.lending.guests.Add(1)
	defer g.lending.guests.Add(-1)
	return g.Executor.Execute(ctx, a, o)
}

// errNoContent is what moving blobs gives a node that shares none.
var errNoContent = errors.New("this node shares no content")
