package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/bot"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/image"
	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/node/reapi"
	"github.com/buildmesh/buildmesh/node/web"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// results is the cache of action results with counts of how it was used.
type results struct {
	cache        *actioncache.Cache
	hits, misses atomic.Int64
	found        atomic.Int64 // of the misses, how many another member had
}

// openResults opens the action results beside the store.
func (n *Node) openResults(context.Context) error {
	cache, err := actioncache.Open(filepath.Join(n.config.Dir.Cache, "results"), n.store, actioncache.Options{
		MaxBytes:   int64(n.config.Store.ResultsSize),
		TouchEvery: min(time.Minute, n.config.Store.Lease/4),
	})
	if err != nil {
		return err
	}
	n.results = &results{cache: cache}
	n.onClose("results", cache.Close)
	return nil
}

// find looks for a complete result under each root in turn and counts one look-up. Its error wraps
// actioncache.ErrNotFound when there is none.
func (r *results) find(ctx context.Context, d digest.Digest, roots ...actioncache.Root) (found *repb.ActionResult, err error) {
	for _, root := range roots {
		found, err = r.cache.Get(ctx, actioncache.Key{Action: d, Root: root})
		if err == nil {
			r.hits.Add(1)
			return found, nil
		}
		if !errors.Is(err, actioncache.ErrNotFound) {
			return nil, err
		}
	}
	r.misses.Add(1)
	return nil, err // the last one's, which is a miss
}

// status is the results as the control API tells of them.
func (r *results) status() *controlv1.Results {
	s := r.cache.Stat()
	return &controlv1.Results{Entries: s.Entries, Bytes: s.Bytes, MaxBytes: s.MaxBytes, Hits: r.hits.Load(), Misses: r.misses.Load(), Found: r.found.Load()}
}

// hostRoot is the root of results made with this machine's tools; the client's own, when no actions
// are run here, so that looking under it finds nothing more.
func (n *Node) hostRoot() actioncache.Root {
	if n.machine == nil {
		return actioncache.Client
	}
	return actioncache.Root(n.machine.fingerprint.Sum)
}

// clientResults is the action results as a client of the endpoint may use them: what this machine made
// is found first, what a client uploaded itself stays under a root of its own.
type clientResults struct {
	results *results
	node    *Node
	roots   []actioncache.Root // in the order they are looked under
}

// clientResults are those of this node. A digest does not tell of which kind its action is, so a client's
// question goes to all roots.
func (n *Node) clientResults() clientResults {
	roots := []actioncache.Root{n.hostRoot(), actioncache.Hermetic, imageRoot(), actioncache.Client}
	if n.machine == nil {
		roots = roots[3:]
	}
	return clientResults{results: n.results, node: n, roots: roots}
}

// Get implements reapi.Results.
func (c clientResults) Get(ctx context.Context, d digest.Digest) (*repb.ActionResult, error) {
	found, _, err := c.locate(ctx, d)
	return found, err
}

// locate is Get, and tells which member the result is from; "" when it was here.
func (c clientResults) locate(ctx context.Context, d digest.Digest) (found *repb.ActionResult, from string, err error) {
	found, err = c.results.find(ctx, d, c.roots...)
	if errors.Is(err, actioncache.ErrNotFound) {
		// What a client has made itself is nobody else's, so the last root is not asked for.
		q := lookup.Query{Action: d, Roots: c.roots[:len(c.roots)-1], Expect: func() lookup.Cost { return c.node.expected(reapi.MetadataFrom(ctx).Mnemonic) }}
		found, from, err = c.node.findInMesh(ctx, q, err)
	}
	if errors.Is(err, actioncache.ErrNotFound) {
		return nil, "", noResult{err}
	}
	return found, from, err
}

// noResult is a miss as the endpoint knows it, made without formatting a word.
type noResult struct{ error }

// Is implements the promise of reapi.Results.
func (noResult) Is(target error) bool { return target == cas.ErrNotFound }

// Unwrap gives the cache's own error.
func (n noResult) Unwrap() error { return n.error }

// Put implements reapi.Results.
func (c clientResults) Put(ctx context.Context, d digest.Digest, r *repb.ActionResult) error {
	err := c.results.cache.Put(ctx, actioncache.Key{Action: d, Root: actioncache.Client}, r)
	if errors.Is(err, actioncache.ErrInvalid) || errors.Is(err, actioncache.ErrUncacheable) {
		return &reapi.FieldError{Field: "action_result", Reason: err.Error()}
	}
	return err
}

// flightResults is the action results as executions use them: the kind of the action decides the root.
type flightResults struct {
	results *results
	node    *Node
	host    actioncache.Root
	counts  *counts
}

// imageRoot is the root of results made in container images. An action's digest covers the digest of its
// image; the root adds what of an image's tree that does not tell.
func imageRoot() actioncache.Root { return sha256.Sum256([]byte(image.Platform())) }

// root is where the result of an action belongs.
func (f flightResults) root(a *action.Action) actioncache.Root {
	if a.WholeRoot {
		return actioncache.Hermetic
	}
	if a.Platform.ContainerImage != "" {
		return imageRoot()
	}
	return f.host
}

// Get implements flight.Results.
func (f flightResults) Get(ctx context.Context, a *action.Action, about flight.Meta) (found *repb.ActionResult, from string, err error) {
	found, err = f.results.find(ctx, a.Digest, f.root(a), actioncache.Client)
	if errors.Is(err, actioncache.ErrNotFound) {
		q := lookup.Query{Action: a.Digest, Roots: []actioncache.Root{f.root(a)}, Expect: func() lookup.Cost { return f.node.expected(about.Mnemonic) }}
		found, from, err = f.node.findInMesh(ctx, q, err)
	}
	if errors.Is(err, actioncache.ErrNotFound) {
		return nil, "", fmt.Errorf("%w: %w", flight.ErrNotCached, err)
	}
	if err == nil {
		f.counts.end(web.Cached)
	}
	return found, from, err
}

// Put implements flight.Results. What another member signed is stored where its receipt was looked at (leaseReceipts.Accept):
// it may have been revoked since.
func (f flightResults) Put(ctx context.Context, a *action.Action, r *repb.ActionResult, signed bool) error {
	if signed {
		return nil
	}
	root := f.root(a)
	if strings.HasPrefix(r.GetExecutionMetadata().GetWorker(), bot.WorkerPrefix) {
		root = actioncache.Client // nobody can tell where a bot ran it: it is for this node's clients only
	}
	if err := f.results.cache.Put(ctx, actioncache.Key{Action: a.Digest, Root: root}, r); err != nil {
		return err
	}
	if f.node.content == nil || root == actioncache.Client {
		return nil
	}
	return f.node.content.publish(ctx, a, root, r)
}

// findInMesh looks a result up among the other members after miss, the local cache's word. Of no mesh, it is that word.
// from names the member whose result it is.
func (n *Node) findInMesh(ctx context.Context, q lookup.Query, miss error) (r *repb.ActionResult, from string, err error) {
	if n.content == nil || len(q.Roots) == 0 {
		return nil, "", miss
	}
	found, err := n.content.find(ctx, q)
	if err != nil {
		return nil, "", err
	}
	n.results.found.Add(1)
	by := found.Receipt.Executor
	if by == n.identity.ID() {
		return found.Result, "", nil
	}
	if n.machine != nil {
		n.machine.auditor.found(q.Action, found.Root, lease.Made{By: by, Result: found.Result})
	}
	return found.Result, n.nameOf(by), nil
}
