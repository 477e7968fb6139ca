package node

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// leaseContent is the node's content as exec/lease asks for it.
type leaseContent struct{ node *Node }

// company is what is shared with the mesh now.
func (c leaseContent) company() (*company, error) {
	if c.node.content == nil {
		return nil, errNoContent
	}
	return c.node.content.company.Load(), nil
}

// Fetch implements lease.Content.
func (c leaseContent) Fetch(ctx context.Context, from peer.ID, ds []digest.Digest) error {
	x, err := c.company()
	if err != nil {
		return err
	}
	missing, err := x.fetcher.Fetch(ctx, ds, []peer.ID{from})
	if err == nil && len(missing) > 0 {
		err = &action.MissingError{Digests: missing}
	}
	return err
}

// Inputs implements lease.Content: the tree whole or level by level, then its files.
func (c leaseContent) Inputs(ctx context.Context, from peer.ID, a *action.Action) (int64, error) {
	x, err := c.company()
	if err != nil {
		return 0, err
	}
	fetched := &fetchedTree{content: c, from: from}
	roots := []digest.Digest{a.InputRoot}
	if text := a.Platform.ChrootRoot; text != "" {
		root, err := digest.ParseString(a.Digest.Function(), text)
		if err != nil {
			return 0, err
		}
		roots = append(roots, root)
	}
	var files []digest.Digest
	for _, root := range roots {
		came, err := x.fetcher.FetchTree(ctx, root, []peer.ID{from})
		if fetched.bytes += came; err != nil {
			return fetched.bytes, err
		}
		t, err := tree.Load(ctx, fetched, root, tree.DefaultLimits())
		var missing *tree.MissingError
		if errors.As(err, &missing) {
			return fetched.bytes, &action.MissingError{Digests: missing.Digests}
		}
		if err != nil {
			return fetched.bytes, err
		}
		files = append(files, t.Files()...)
	}
	absent, err := c.node.shared().Missing(ctx, files)
	if err != nil || len(absent) == 0 {
		return fetched.bytes, err
	}
	for _, d := range absent {
		fetched.bytes += d.Size()
	}
	return fetched.bytes, c.Fetch(ctx, from, absent)
}

// fetchedTree is a store whose directories come from a peer when they are not here.
type fetchedTree struct {
	content leaseContent
	from    peer.ID
	bytes   int64
}

// GetBatch implements tree.Getter.
func (f *fetchedTree) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	absent, err := f.content.node.shared().Missing(ctx, ds)
	if err != nil {
		return nil, err
	}
	if len(absent) > 0 {
		var missing *action.MissingError
		if err := f.content.Fetch(ctx, f.from, absent); err != nil && !errors.As(err, &missing) {
			return nil, err
		}
		for _, d := range absent {
			f.bytes += d.Size()
		}
	}
	return f.content.node.shared().GetBatch(ctx, ds)
}

// Outputs implements lease.Content.
func (c leaseContent) Outputs(ctx context.Context, from peer.ID, fn digest.Function, r *repb.ActionResult) error {
	x, err := c.company()
	if err != nil {
		return err
	}
	return x.lookup.Pull(ctx, fn, r, []peer.ID{from})
}

// Pin implements lease.Content.
func (c leaseContent) Pin(ctx context.Context, fn digest.Function, r *repb.ActionResult) (func(), error) {
	blobs, err := c.node.results.cache.References(ctx, fn, r)
	if err != nil {
		return func() {}, err
	}
	pin, missing := c.node.store.Pin(blobs)
	if len(missing) > 0 {
		pin.Release()
		return func() {}, fmt.Errorf("pin %d outputs: %w", len(missing), cas.ErrNotFound)
	}
	return pin.Release, nil
}

// leaseReceipts signs what ran here for others, and checks what others signed.
type leaseReceipts struct{ node *Node }

// root is where the result of an action belongs, the same here and at any member that may run it.
func (r leaseReceipts) root(a *action.Action) actioncache.Root {
	return flightResults{node: r.node, host: r.node.hostRoot()}.root(a)
}

// Sign implements lease.Receipts. A result that failed is nobody's to share.
func (r leaseReceipts) Sign(_ context.Context, a *action.Action, result *repb.ActionResult) ([]byte, error) {
	if r.node.content == nil || result.ExitCode != 0 {
		return nil, nil
	}
	signed, err := receipt.Sign(r.node.identity, r.node.content.statement(a, r.root(a), result))
	if err != nil {
		return nil, err
	}
	return signed.Raw(), nil
}

// Accept implements lease.Receipts. What failed comes without a receipt and is never cached; what is private is cached without.
func (r leaseReceipts) Accept(ctx context.Context, from peer.ID, a *action.Action, result *repb.ActionResult, raw []byte) error {
	kept, err := r.believe(ctx, from, a, result, raw)
	key := actioncache.Key{Action: a.Digest, Root: r.root(a)}
	switch {
	case err != nil || result.ExitCode != 0 || a.DoNotCache:
		return err
	case kept:
		return r.node.content.company.Load().lookup.Accept(ctx, raw, key)
	}
	return r.node.results.cache.Put(ctx, key, result)
}

// Note implements lease.Receipts.
func (r leaseReceipts) Note(ctx context.Context, from peer.ID, a *action.Action, result *repb.ActionResult, raw []byte) error {
	kept, err := r.believe(ctx, from, a, result, raw)
	if !kept || err != nil {
		return err
	}
	return r.node.content.company.Load().lookup.Note(raw, actioncache.Key{Action: a.Digest, Root: r.root(a)})
}

// believe checks that a result is the one that its executor answers for; kept reports whether that one's receipt is.
func (r leaseReceipts) believe(ctx context.Context, from peer.ID, a *action.Action, result *repb.ActionResult, raw []byte) (kept bool, err error) {
	if result.ExitCode != 0 {
		return false, nil
	}
	c := r.node.content
	if c == nil {
		return false, errNoContent
	}
	signed, err := receipt.Parse(raw)
	if err != nil {
		return false, err
	}
	if signed.Executor != from {
		return false, fmt.Errorf("%w: %s signed it, and %s brought it", receipt.ErrUntrusted, signed.Executor.Short(), from.Short())
	}
	if !proto.Equal(signed.Result, result) { // else it could give one thing and answer for another
		return false, fmt.Errorf("%w: %s brought another result than it signed", receipt.ErrInvalid, from.Short())
	}
	private, err := c.private(ctx, a, result)
	if err != nil {
		return false, err
	}
	if a.DoNotCache || private {
		return false, signed.Check(c.company.Load().mesh.String(), a.Digest, r.root(a))
	}
	return true, nil
}
