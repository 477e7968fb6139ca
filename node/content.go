package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/distance"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/dht/onehop"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/replicate"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// summaryBits is the size of a fingerprint in a summary.
const summaryBits = 32

// content is the part of a node that shares blobs and action results with its mesh. What depends on which mesh that is
// stands in a company, which a move to another mesh replaces.
type content struct {
	node     *Node
	receipts *receipt.Store
	guard    *share.Guard
	policy   receipt.Policy

	changing sync.Mutex // one change of mesh at a time
	company  atomic.Pointer[company]
}

// company is what is shared with one mesh.
type company struct {
	mesh    peer.ID
	keyer   *cid.Keyer
	served  *share.Content
	summary *summary.Locator
	onehop  *onehop.Locator
	noted   *onehop.Index
	both    *locate.Chain // the index of this site and the summaries of others; a pointer, so that locators can be compared
	kad     *kadPart
	kind    func() locate.Kind // of the locator in use
	blobs   *blobIndex
	fetcher *fetch.Fetcher
	distant *distance.Table // how far other sites are, as measured
	copying *fetch.Fetcher  // of copies, at a bounded rate
	lookup  *lookup.Lookup
	copies  *lookup.Lookup // takes copies of what others made, at a bounded rate
	copier  *replicate.Copier
	stop    context.CancelFunc
	running sync.WaitGroup
}

// openContent shares with the members of the mesh from now on; nothing, where there is none.
func (n *Node) openContent(context.Context) error {
	if n.mesh == nil {
		return nil
	}
	c := &content{node: n, guard: share.NewGuard(transport.Caller, int64(n.config.Mesh.Upload))}
	var err error
	if c.policy, err = receipt.ParsePolicy(n.config.Mesh.Trust); err != nil {
		return fmt.Errorf("mesh.trust: %w", err)
	}
	c.receipts, err = receipt.Open(filepath.Join(n.config.Dir.Cache, "receipts"), receipt.Options{MaxBytes: int64(n.config.Store.ResultsSize)})
	if err != nil {
		return err
	}
	n.onClose("receipts", c.receipts.Close)
	blobs := share.NewBlobs(n.store, c.guard, n.private)
	blobs.Register(n.mesh.transport.BulkServer())
	blobs.RegisterFind(n.mesh.transport.ControlServer())
	contentv1.RegisterContentServer(n.mesh.transport.ControlServer(), contentServer{content: c})
	n.content = c
	c.begin()
	n.mesh.seat.Watch(c.changed)
	n.onClose("content", func() error {
		c.changing.Lock()
		defer c.changing.Unlock()
		c.end()
		return nil
	})
	return nil
}

// begin shares with the mesh the seat is in. c.changing must be held, or nobody else know c.
func (c *content) begin() {
	c.revoke() // nothing is announced yet
	x := c.newCompany()
	ctx, stop := context.WithCancel(context.Background())
	x.stop = stop
	for _, run := range []func(context.Context){x.summary.Peers.Run, x.served.Bridge.Run, x.onehop.Run, x.copier.Run, newTender(c, x).run} {
		x.running.Go(func() { run(ctx) })
	}
	c.company.Store(x)
}

// newCompany joins what is shared with the mesh the seat is in; nothing of it runs yet.
func (c *content) newCompany() *company {
	n, root := c.node, c.node.mesh.seat.Charter().Root
	sites, links := n.sites(), n.mesh.transport
	index := n.mesh.seat.Index()
	x := &company{mesh: root, keyer: cid.NewKeyer(index[:]), distant: distance.NewTable()}
	peers := summary.NewSitePeers(sites, links)
	x.summary = &summary.Locator{Publisher: summary.NewPublisher(summaryBits), Peers: peers}
	x.noted = onehop.NewIndex()
	bridge := summary.NewBridge(sites, x.summary, links)
	x.onehop = onehop.New(n.identity.ID(), x.noted, indexed(n.config.Mesh.Locator, sites), links)
	x.both = &locate.Chain{x.onehop, x.summary}
	x.kad = &kadPart{host: links.Host(), log: n.log}
	x.kind = kindOf(n.config.Mesh.Locator, sites)
	x.blobs = newBlobIndex(n.store, n.private, x.keyer)
	f := fetch.Options{Store: n.shared(), Dialer: links, Members: locate.Only(sites.Near), Keyer: x.keyer, Locator: locate.Switch{Choose: x.large}, Rate: int64(n.config.Mesh.Download), Brought: brought(sites, x.distant)}
	x.fetcher = fetch.New(f)
	o := lookup.Options{
		Self: n.identity.ID(), Mesh: root.String(), Keyer: x.keyer, Locator: locate.Switch{Choose: x.results}, Dialer: links, Receipts: c.receipts,
		Results: n.results.cache, Blobs: n.store, Fetcher: x.fetcher, Policy: c.policy, Trust: meshTrust{n.mesh}, Report: peers.Report, Holders: x.holders, Hides: n.private.Active(), Far: sites.Far, Distances: x.distant,
	}
	x.lookup = lookup.New(o)
	f.Rate, f.Within = int64(n.config.Store.ReplicaRate), x.fetcher
	x.copying = fetch.New(f)
	o.Fetcher = x.copying
	x.copies = lookup.New(o)
	x.copier = c.newCopier(o.Locator)
	x.served = &share.Content{Guard: c.guard, Publisher: x.summary.Publisher, Index: x.noted, OneHop: x.onehop, Known: x.lookup, Keeper: c.newKeeper(x), Bridge: bridge}
	return x
}

// results is the locator that results are announced to now.
func (x *company) results() locate.Locator {
	switch x.kind() {
	case locate.Summaries:
		return x.summary
	case locate.OneHopNear:
		return x.both
	}
	return x.large()
}

// holders says without asking anyone who else at this site has results.
func (x *company) holders(keys []cid.Key) [][]peer.ID {
	return x.noting(x.summary.Peers.Near(keys), keys)
}

// noting adds those that the index names.
func (x *company) noting(found [][]peer.ID, keys []cid.Key) [][]peer.ID {
	for i, ids := range x.noted.Find(x.onehop.Self(), keys) {
		for _, id := range ids {
			if !slices.Contains(found[i], id) {
				found[i] = append(found[i], id)
			}
		}
	}
	return found
}

// large is the locator of large blobs and trees.
func (x *company) large() locate.Locator {
	if x.kind() == locate.Kad {
		if l := x.kad.open(); l != nil {
			return l
		}
	}
	return x.onehop
}

// forget takes results back from the indexes of others, wherever they may have been announced.
func (x *company) forget(keys []cid.Key) {
	_ = x.onehop.Forget(context.Background(), keys) // who cannot be told drops them when they are not announced again
	if l := x.kad.opened(); l != nil {
		_ = l.Forget(context.Background(), keys) // the same
	}
}

// end shares no more. c.changing must be held.
func (c *content) end() {
	x := c.company.Load()
	x.stop()
	x.lookup.Close()
	x.copies.Close()
	x.running.Wait()
	x.kad.close()
}

// adoptOwn announces the receipts of this mesh, and signs anew for it what this node made in an earlier one.
func (c *content) adoptOwn(ctx context.Context, x *company) error {
	var keys []cid.Key
	if err := c.receipts.Keys(func(k cid.Key) error { keys = append(keys, k); return nil }); err != nil {
		return err
	}
	var actions []digest.Digest
	self, mesh := c.node.identity.ID(), x.mesh.String()
	for _, k := range keys {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		raw, err := c.receipts.Raw([]cid.Key{k})
		if err != nil {
			return err
		}
		for _, one := range raw[0] {
			s, err := receipt.Peek(one)
			if err != nil {
				continue
			}
			x.blobs.addResult(s.Action.Function(), s.Result)
			if s.Executor != self {
				continue
			}
			actions = append(actions, s.Action)
			if time.Since(s.Completed) < replicateFor {
				x.copier.Note(x.keyer.Result(s.Action, s.Root))
			}
			if s.Mesh == mesh {
				continue
			}
			if err := x.lookup.Publish(ctx, c.node.identity, s); err != nil {
				return err
			}
		}
	}
	if err := x.blobs.addInputs(ctx, actions); err != nil {
		return err
	}
	return x.lookup.AnnounceAll(ctx)
}

// changed follows the seat: another mesh is another company, and what somebody who was turned out has signed is gone.
func (c *content) changed(change member.Change) {
	c.changing.Lock()
	defer c.changing.Unlock()
	if change.Moved {
		c.end()
		c.begin()
		return
	}
	x := c.company.Load()
	for _, id := range change.Out {
		x.noted.Drop(id)
	}
	if gone := c.revoke(); len(gone) > 0 {
		_ = x.summary.Forget(context.Background(), gone) // filters and maps: it cannot fail for good
		x.running.Go(func() { x.forget(gone) })
	}
}

// revoke drops what the charter says is not to be believed, and gives the keys under which nothing is left that others would
// believe. It is done at every start too: the node may have been killed between learning of a revocation and this.
func (c *content) revoke() (gone []cid.Key) {
	since := map[peer.ID]time.Time{}
	for _, r := range c.node.mesh.seat.Charter().Revoked {
		since[r.Peer] = r.Since
	}
	gone, err := c.receipts.Revoke(since, func(s receipt.Statement) error {
		// What was taken on its word is served no more; what others say of it is found again.
		return c.node.results.cache.Delete(actioncache.Key{Action: s.Action, Root: s.Root})
	})
	if err != nil {
		c.node.log.Error("results of revoked members are kept", "err", err)
	}
	return gone
}

// find looks a result up in the mesh. A hit is complete and local. Errors wrap actioncache.ErrNotFound on a miss, whatever
// the reason: running is always right.
func (c *content) find(ctx context.Context, q lookup.Query) (*lookup.Found, error) {
	x := c.company.Load()
	found, err := x.lookup.Find(ctx, q)
	if err != nil {
		return nil, meshMiss{err}
	}
	x.blobs.addResult(q.Action.Function(), found.Result)
	return found, nil
}

// meshMiss is a lookup in the mesh that found nothing, as the cache of results knows it. It is made at every miss, and formatted
// only when somebody reads it.
type meshMiss struct{ error }

func (m meshMiss) Error() string { return actioncache.ErrNotFound.Error() + ": " + m.error.Error() }

// Is makes it an actioncache.ErrNotFound.
func (meshMiss) Is(target error) bool { return target == actioncache.ErrNotFound }

// Unwrap gives the lookup's own error.
func (m meshMiss) Unwrap() error { return m.error }

// publish signs a result that was made and stored, and tells the mesh of it, unless it is private.
func (c *content) publish(ctx context.Context, a *action.Action, root actioncache.Root, r *repb.ActionResult) error {
	if private, err := c.private(ctx, a, r); private || err != nil {
		return err
	}
	if !c.node.report.Tier.Guests() {
		return nil
	}
	x := c.company.Load()
	x.blobs.add(a.InputRoot)
	x.blobs.addResult(a.Digest.Function(), r)
	if err := x.lookup.Publish(ctx, c.node.identity, c.statement(a, root, r)); err != nil {
		return err
	}
	x.copier.Note(x.keyer.Result(a.Digest, root))
	return nil
}

// private reports whether a result is not shared. What became so by a name that only the result has is hidden.
func (c *content) private(ctx context.Context, a *action.Action, r *repb.ActionResult) (bool, error) {
	n := c.node
	if why, err := n.judge(ctx, a); why != share.Shared {
		return true, err
	}
	named, err := n.private.Result(ctx, n.store, a.Digest.Function(), r)
	if !named || err != nil {
		return named, err
	}
	blobs, err := n.results.cache.References(ctx, a.Digest.Function(), r)
	err = errors.Join(err, n.private.Hide(blobs, share.ByName))
	c.company.Load().blobs.look()
	return true, err
}

// statement is what this node says of a result that it made.
func (c *content) statement(a *action.Action, root actioncache.Root, r *repb.ActionResult) receipt.Statement {
	m := r.GetExecutionMetadata()
	return receipt.Statement{
		Mesh: c.company.Load().mesh.String(), Action: a.Digest, Root: root, Result: r, Tier: c.node.report.Tier.String(),
		Platform: c.node.machine.offer.OSFamily, Started: m.GetExecutionStartTimestamp().AsTime(), Completed: m.GetExecutionCompletedTimestamp().AsTime(),
	}
}

// meshTrust says whose receipts count: those of members, and this node's own.
type meshTrust struct{ m *meshed }

// Trusted implements lookup.Trust.
func (t meshTrust) Trusted(id peer.ID) bool {
	return id == t.m.seat.ID() || t.m.seat.Admits(id) == nil
}
