package node

import (
	"context"
	"errors"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/exec/merge"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/node/web"
)

// openMerging has actions that several members run at the same time be run once. The content is opened later, before anybody calls.
func (l *leasing) openMerging() {
	n := l.node
	l.merger = merge.New(merge.Options{
		Self: n.identity.ID(), Network: n.mesh.transport, Results: mergedResults{l}, Expect: l.initiator.Estimate, Name: n.nameOf,
		Caller: func(ctx context.Context) (peer.ID, error) { return n.content.guard.Admit(ctx) },
		Missed: func(caller peer.ID, keys int) { n.content.guard.Missed(caller, keys) },
		Keeper: func(k merge.Key) peer.ID { return n.content.company.Load().onehop.Keeper(cid.Key(k)) },
	})
	l.merger.Register(n.mesh.transport.ControlServer())
	n.onClose("merging", func() error { l.merger.Close(); return nil })
}

// mergedResults is the node's results as exec/merge asks for them.
type mergedResults struct{ leasing *leasing }

// key is where the result of an action is found here.
func (r mergedResults) key(a *action.Action) actioncache.Key {
	return actioncache.Key{Action: a.Digest, Root: leaseReceipts{r.leasing.node}.root(a)}
}

// Key implements merge.Results.
func (r mergedResults) Key(ctx context.Context, a *action.Action) (merge.Key, bool) {
	if r.leasing.class(ctx, a) == place.Local {
		return merge.Key{}, false
	}
	return merge.Key(r.leasing.resultKey(a)), true
}

// Receipts implements merge.Results.
func (r mergedResults) Receipts(k merge.Key) ([][]byte, error) {
	all, err := r.leasing.node.content.receipts.Raw([]cid.Key{cid.Key(k)})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Adopt implements merge.Results: the first of the receipts that is believed, and whose outputs can be had, decides.
func (r mergedResults) Adopt(ctx context.Context, a *action.Action, from peer.ID, receipts [][]byte) (*repb.ActionResult, error) {
	n := r.leasing.node
	x, key := n.content.company.Load(), r.key(a)
	var errs []error
	for _, raw := range receipts {
		if err := x.lookup.Adopt(ctx, raw, x.keyer.Result(key.Action, key.Root), from); err != nil {
			errs = append(errs, err)
			continue
		}
		found, err := n.results.cache.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		x.blobs.addResult(a.Digest.Function(), found)
		r.leasing.machine.counts.end(web.Merged)
		if said, err := receipt.Peek(raw); err == nil {
			r.leasing.machine.auditor.found(a.Digest, key.Root, lease.Made{By: said.Executor, Result: found})
		}
		return found, nil
	}
	return nil, errors.Join(errs...)
}
