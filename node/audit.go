package node

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/node/power"
)

// weighTime bounds what noting one comparison may take.
const weighTime = 10 * time.Second

// auditor has some of the results that members made be made again here, and notes what comes of it. What this node makes
// itself it signs as it does any result: a receipt that disagrees with another's is evidence, and the action is quarantined.
// It is a lease.Auditor.
type auditor struct {
	node     *Node
	sample   receipt.Sample
	compared atomic.Int64
	disputed atomic.Int64 // of those, how many differed
}

// newAuditor reads the configured rate.
func newAuditor(n *Node) (*auditor, error) {
	percent, err := strconv.ParseFloat(n.config.Mesh.Audit, 64)
	if err != nil || !(percent >= 0 && percent <= 100) {
		return nil, fmt.Errorf("mesh.audit = %q is not a number from 0 to 100", n.config.Mesh.Audit)
	}
	return &auditor{node: n, sample: receipt.NewSample(percent / 100)}, nil
}

// Draw implements lease.Auditor.
func (x *auditor) Draw(from peer.ID) bool { return x.sample.Draw(x.known(from)) }

// known is for how long this node has known a member.
func (x *auditor) known(id peer.ID) time.Duration {
	m, found := x.node.mesh.presence.Roster.Now().Get(id)
	if !found {
		return 0
	}
	return time.Since(m.Met)
}

// Suits implements lease.Auditor. A machine that is short of something makes nothing twice, and what may read the network need
// not read the same there twice.
func (x *auditor) Suits(a *action.Action) bool {
	return !x.node.draining.Load() && !a.Platform.Network && x.node.machine.here(a.Platform) == nil &&
		x.node.lending.governor.Status().State == power.Open
}

// found has a result of a member, found or waited for on behalf of a client of this node, made again if it is drawn.
func (x *auditor) found(d digest.Digest, root actioncache.Root, m lease.Made) {
	if l := x.node.machine.leasing; l != nil {
		l.initiator.Found(d, root == actioncache.Hermetic, m)
	}
}

// Compare implements lease.Auditor. The receipts that came with results of members are kept already, this node's own is not.
func (x *auditor) Compare(a *action.Action, first, second lease.Made) {
	if first.Result.GetExitCode() != 0 && second.Result.GetExitCode() != 0 {
		return // nothing of it is shared
	}
	differ := len(receipt.Compare(first.Result, second.Result)) > 0
	x.node.journal.Remark(a.Digest, x.remark(first, second, differ))
	x.compared.Add(1)
	if differ {
		x.disputed.Add(1)
	}
	own := second
	if first.By == x.node.identity.ID() {
		own = first
	}
	if own.By != x.node.identity.ID() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), weighTime)
	defer cancel()
	if err := x.keep(ctx, a, own, differ); err != nil {
		x.node.log.Warn("a comparison with a member's result is lost", "action", a.Digest.String(), "err", err)
	}
}

// remark is a comparison for who asks buildmesh why.
func (x *auditor) remark(first, second lease.Made, differ bool) string {
	text := "made by " + x.node.nameOf(first.By) + " and by " + x.node.nameOf(second.By) + ": "
	if differ {
		return text + "the outputs DIFFER, see: buildmesh cache disputes"
	}
	return text + "the same outputs"
}

// keep signs what this node made. When it differs from a member's, it takes that one's place here: nobody's word counts for
// more than one's own.
func (x *auditor) keep(ctx context.Context, a *action.Action, own lease.Made, differ bool) error {
	root := leaseReceipts{x.node}.root(a)
	key := actioncache.Key{Action: a.Digest, Root: root}
	if own.Result.GetExitCode() != 0 { // it succeeded there and fails here: the next who asks runs it
		return x.node.results.cache.Delete(key)
	}
	if differ {
		if err := x.node.results.cache.Put(ctx, key, own.Result); err != nil {
			return err
		}
	}
	c := x.node.content
	return c.company.Load().lookup.Publish(ctx, x.node.identity, c.statement(a, root, own.Result))
}
