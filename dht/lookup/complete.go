package lookup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// errIncomplete means that a result's blobs cannot be had.
var errIncomplete = errors.New("its outputs cannot be had")

// complete brings every blob of a result here from the holders, stores the result and gives it as the local cache does.
// Errors: errIncomplete, receipt.ErrUntrusted when its executor was revoked meanwhile, what the local stores failed with, or the
// context's.
func (l *Lookup) complete(ctx context.Context, key actioncache.Key, r *receipt.Receipt, holders []peer.ID) (*repb.ActionResult, error) {
	holders = l.nearFirst(slices.DeleteFunc(holders, func(id peer.ID) bool { return id == l.options.Self }))
	if err := l.put(ctx, key, r); err != nil {
		if errors.Is(err, actioncache.ErrInvalid) || errors.Is(err, actioncache.ErrUncacheable) {
			return nil, fmt.Errorf("%w: %w", errIncomplete, err)
		}
		return nil, err
	}
	if !l.options.Hides {
		// What is here already is complete at the first look, without reading trees twice.
		if result, err := l.options.Results.Get(ctx, key); !errors.Is(err, actioncache.ErrNotFound) {
			return result, err
		}
	}
	if err := l.pull(ctx, key.Action.Function(), r.Result, holders); err != nil {
		return nil, err
	}
	result, err := l.options.Results.Get(ctx, key)
	if errors.Is(err, actioncache.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", errIncomplete, err)
	}
	return result, err
}

// Pull brings everything here that a result refers to, made by fn, from holders first. An error says that nobody has it all,
// or what the local stores failed with.
func (l *Lookup) Pull(ctx context.Context, fn digest.Function, r *repb.ActionResult, holders []peer.ID) error {
	return l.pull(ctx, fn, r, holders)
}

// pull fetches what a result names, and then what its directories do. Errors: errIncomplete.
func (l *Lookup) pull(ctx context.Context, fn digest.Function, r *repb.ActionResult, holders []peer.ID) error {
	var blobs, trees, roots []digest.Digest
	add := func(to *[]digest.Digest, p *repb.Digest) {
		if d, err := digest.FromProto(fn, p); err == nil { // Results.Put has refused malformed ones
			*to = append(*to, d)
		}
	}
	for _, f := range r.OutputFiles {
		add(&blobs, f.Digest)
	}
	for _, d := range r.OutputDirectories {
		add(&trees, d.TreeDigest)
		if d.TreeDigest == nil {
			add(&roots, d.RootDirectoryDigest)
		}
	}
	add(&blobs, r.StdoutDigest)
	add(&blobs, r.StderrDigest)
	limit := tree.DefaultLimits().MaxDirectoryBytes
	if slices.ContainsFunc(trees, func(d digest.Digest) bool { return d.Size() > limit }) {
		return fmt.Errorf("%w: %w: a Tree message of more than %d bytes", errIncomplete, tree.ErrInvalid, limit)
	}
	if err := l.fetch(ctx, append(blobs, trees...), holders); err != nil {
		return err
	}
	more, err := l.below(ctx, fn, trees, r.OutputDirectories)
	if err != nil {
		return err
	}
	for _, root := range roots {
		if _, err := l.options.Fetcher.FetchTree(ctx, root, holders); err != nil {
			return err
		}
		getter := fetching{l, holders}
		t, err := tree.Load(ctx, getter, root, tree.Limits{})
		if err != nil {
			return fmt.Errorf("%w: %w", errIncomplete, err)
		}
		more = append(more, t.Files()...)
	}
	return l.fetch(ctx, more, holders)
}

// fetch brings blobs here, all of them or it is errIncomplete.
func (l *Lookup) fetch(ctx context.Context, ds []digest.Digest, holders []peer.ID) error {
	if len(ds) == 0 {
		return nil
	}
	missing, err := l.options.Fetcher.Fetch(ctx, ds, holders)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %d blobs, one is %s", errIncomplete, len(missing), missing[0].Short())
	}
	return err
}

// below lists what Tree messages refer to: files, and directories where the result names their root.
func (l *Lookup) below(ctx context.Context, fn digest.Function, trees []digest.Digest, dirs []*repb.OutputDirectory) ([]digest.Digest, error) {
	if len(trees) == 0 {
		return nil, nil
	}
	messages, err := l.options.Blobs.GetBatch(ctx, trees)
	if err != nil {
		return nil, err
	}
	named := slices.ContainsFunc(dirs, func(d *repb.OutputDirectory) bool {
		return d.TreeDigest != nil && d.RootDirectoryDigest != nil
	})
	var all []digest.Digest
	for i, m := range messages {
		if m == nil && !trees[i].IsEmpty() {
			return nil, fmt.Errorf("%w: %s is gone again", errIncomplete, trees[i].Short())
		}
		t, err := tree.FromTreeProto(fn, m, tree.Limits{})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errIncomplete, err)
		}
		all = append(all, t.Files()...)
		if named {
			all = append(all, t.Directories()...)
		}
	}
	return all, nil
}

// fetching reads blobs and fetches them first, level by level as a tree is loaded.
type fetching struct {
	lookup  *Lookup
	holders []peer.ID
}

// GetBatch implements tree.Getter.
func (f fetching) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	if _, err := f.lookup.options.Fetcher.Fetch(ctx, ds, f.holders); err != nil {
		return nil, err
	}
	return f.lookup.options.Blobs.GetBatch(ctx, ds)
}
