package lookup_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/distance"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/locate/wire"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/dht/onehop"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

var (
	keyer = cid.NewKeyer([]byte("ours"))
	root  = actioncache.Root{7}
	roots = []actioncache.Root{root}
)

// node is one member with everything of content.
type node struct {
	*wire.Node
	identity *peer.Identity
	store    *casfake.Store
	results  *meddled
	receipts *receipt.Store
	sites    locate.Sites
	summary  *summary.Locator
	bridge   *summary.Bridge
	distance *distance.Table
	lookup   *lookup.Lookup
}

// trust is who counts.
type trust struct {
	mu      sync.Mutex // guards all below
	revoked map[peer.ID]bool
	said    func() // called once, after a question was answered
}

func (t *trust) Trusted(id peer.ID) bool {
	t.mu.Lock()
	trusted, said := !t.revoked[id], t.said
	t.said = nil
	t.mu.Unlock()
	if said != nil {
		said()
	}
	return trusted
}

func (t *trust) revoke(id peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revoked[id] = true
}

// meddled calls functions around a cache, each once.
type meddled struct {
	*actioncache.Cache
	beforePut, afterGet func()
}

func (m *meddled) Put(ctx context.Context, key actioncache.Key, r *repb.ActionResult) error {
	if f := m.beforePut; f != nil {
		m.beforePut = nil
		f()
	}
	return m.Cache.Put(ctx, key, r)
}

func (m *meddled) Get(ctx context.Context, key actioncache.Key) (*repb.ActionResult, error) {
	r, err := m.Cache.Get(ctx, key)
	if f := m.afterGet; f != nil && err == nil {
		m.afterGet = nil
		f()
	}
	return r, err
}

// world is a mesh of such nodes.
type world struct {
	net   *wire.Net
	nodes []*node
	trust *trust
	gone  map[int]bool // nodes that were cut off
}

// cut ends a node.
func (w *world) cut(i int) {
	w.nodes[i].Cut()
	w.gone[i] = true
}

// knows gives what node i answers others, nil for what it really knows.
type knows func(i int, l *lookup.Lookup) share.Results

func newWorld(t testing.TB, n int, policy receipt.Policy, lie knows) *world {
	t.Helper()
	return newSites(t, make([]string, n), policy, lie)
}

// newSites makes a world of one node for each name of a site.
func newSites(t testing.TB, sites []string, policy receipt.Policy, lie knows) *world {
	t.Helper()
	n := len(sites)
	w := &world{trust: &trust{revoked: map[peer.ID]bool{}}, gone: map[int]bool{}}
	ids := make([]peer.ID, n)
	identities := make([]*peer.Identity, n)
	for i := range ids {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if identities[i], err = peer.Load(dir); err != nil {
			t.Fatal(err)
		}
		ids[i] = identities[i].ID()
	}
	net := wire.New(ids)
	w.net = net
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i, id := range ids {
		net.Node(id).SetSite(sites[i])
		x := w.add(t, net.Node(id), identities[i], policy)
		known := share.Results(x.lookup)
		if lie != nil {
			if other := lie(i, x.lookup); other != nil {
				known = other
			}
		}
		guard := share.NewGuard(wire.Caller, 0)
		private := &share.Private{}
		share.NewBlobs(x.store, guard, private).Register(x.Server)
		index := onehop.NewIndex()
		(&share.Content{Guard: guard, Publisher: x.summary.Publisher, Index: index, OneHop: onehop.New(id, index, x, x), Known: known, Bridge: x.bridge}).Register(x.Server)
	}
	net.Start()
	for _, x := range w.nodes {
		running.Go(func() { x.summary.Peers.Run(ctx) })
		running.Go(func() { x.bridge.Run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		for _, x := range w.nodes {
			x.Thaw()
			x.lookup.Close()
		}
		running.Wait()
		net.Close()
	})
	return w
}

// add makes one node.
func (w *world) add(t testing.TB, wired *wire.Node, identity *peer.Identity, policy receipt.Policy) *node {
	t.Helper()
	x := &node{Node: wired, identity: identity, store: casfake.New(cas.Options{MaxBytes: 1 << 30}), distance: distance.NewTable()}
	cache, err := actioncache.Open(t.TempDir(), x.store, actioncache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	x.results = &meddled{Cache: cache}
	if x.receipts, err = receipt.Open(t.TempDir(), receipt.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.results.Close(); x.receipts.Close() })
	x.sites = locate.Sites{Self: func() locate.Member { return locate.Member{ID: x.ID, Site: x.Site()} }, All: x}
	x.summary = &summary.Locator{Publisher: summary.NewPublisher(0), Peers: summary.NewSitePeers(x.sites, x)}
	x.bridge = summary.NewBridge(x.sites, x.summary, x)
	brought := func(id peer.ID, bytes int64, took time.Duration) {
		if site, far := x.sites.Far(id); far {
			x.distance.Brought(site, bytes, took)
		}
	}
	x.lookup = lookup.New(lookup.Options{
		Self: wired.ID, Mesh: "ours", Keyer: keyer, Locator: x.summary, Dialer: x, Receipts: x.receipts,
		Results: x.results, Blobs: x.store, Policy: policy, Trust: w.trust, Report: x.summary.Peers.Report, Holders: x.summary.Peers.Near, Far: x.sites.Far, Distances: x.distance,
		Fetcher: fetch.New(fetch.Options{Store: x.store, Dialer: x, Members: locate.Only(x.sites.Near), Keyer: keyer, Brought: brought}),
	})
	w.nodes = append(w.nodes, x)
	return x
}

// settle waits until what node from announced is found by node to.
func (w *world) settle(t testing.TB, from, to int, action digest.Digest) {
	t.Helper()
	key := keyer.Result(action, root)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		for _, id := range w.nodes[to].summary.Peers.Find([]cid.Key{key})[0] {
			if id == w.nodes[from].ID {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("node %d does not learn what node %d has", to, from)
		}
	}
}

// connected waits until everybody has everybody's summary: no stream is opened after it.
func (w *world) connected(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		all := true
		for _, n := range w.nodes {
			all = all && n.summary.Peers.Stat().Peers == len(n.sites.Members())
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("summaries do not spread")
		}
	}
}

func actionOf(name string) digest.Digest { return digest.SHA256.Of([]byte("action " + name)) }

// put stores content and gives its digest.
func (n *node) put(t testing.TB, content string) *repb.Digest {
	t.Helper()
	d := digest.SHA256.Of([]byte(content))
	if err := n.store.Put(t.Context(), d, []byte(content)); err != nil {
		t.Fatal(err)
	}
	return d.Proto()
}

// build has a node make a result: two files, a directory with a file, and what was printed.
func (n *node) build(t testing.TB, name, content string) *repb.ActionResult {
	t.Helper()
	tree := &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{{Name: "inside", Digest: n.put(t, "inside "+content)}}}}
	message, err := proto.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	r := &repb.ActionResult{
		OutputFiles:       []*repb.OutputFile{{Path: "a", Digest: n.put(t, "a "+content)}, {Path: "b", Digest: n.put(t, "b "+content)}},
		OutputDirectories: []*repb.OutputDirectory{{Path: "dir", TreeDigest: n.put(t, string(message))}},
		StdoutDigest:      n.put(t, "printed "+content),
	}
	n.publish(t, name, r)
	return r
}

// publish stores a result as made by a node.
func (n *node) publish(t testing.TB, name string, r *repb.ActionResult) {
	t.Helper()
	key := actioncache.Key{Action: actionOf(name), Root: root}
	if err := n.results.Put(t.Context(), key, r); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := n.lookup.Publish(t.Context(), n.identity, receipt.Statement{Action: key.Action, Root: root, Result: r, Started: now, Completed: now}); err != nil {
		t.Fatal(err)
	}
}

// want checks a lookup: found from one of these executors, or not at all for none.
func (w *world) want(t testing.TB, at int, name string, executors ...int) {
	t.Helper()
	found, err := w.nodes[at].lookup.Find(t.Context(), lookup.Query{Action: actionOf(name), Roots: roots})
	if err := explain(w, found, err, executors); err != nil {
		t.Fatalf("node %d looks for %s: %v", at, name, err)
	}
	if err == nil {
		if _, err := w.nodes[at].results.Get(t.Context(), actioncache.Key{Action: actionOf(name), Root: root}); err != nil {
			t.Fatalf("node %d has a hit that is not complete: %v", at, err)
		}
	}
}

func explain(w *world, found *lookup.Found, err error, executors []int) error {
	if err != nil {
		if len(executors) == 0 {
			return nil
		}
		return err
	}
	for _, e := range executors {
		if found.Receipt.Executor == w.nodes[e].ID {
			return nil
		}
	}
	return fmt.Errorf("found what %s made", found.Receipt.Executor.Short())
}
