package share

import (
	"context"
	"fmt"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// veil is a store in which what is private is absent. It is not even read, which would take longer.
type veil struct {
	store   Store
	private *Private
}

// part parts the private ones of ds from the others.
func (v veil) part(ds []digest.Digest) (private, shared []digest.Digest) {
	if !v.private.Active() {
		return nil, ds
	}
	for _, d := range ds {
		if v.private.Has(d) {
			private = append(private, d)
		} else {
			shared = append(shared, d)
		}
	}
	return private, shared
}

// Missing implements Store. The order is that of ds, which does not tell why one is missing.
func (v veil) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	private, shared := v.part(ds)
	missing, err := v.store.Missing(ctx, shared)
	if err != nil || len(private) == 0 {
		return missing, err
	}
	is := make(map[digest.Digest]bool, len(private)+len(missing))
	for _, d := range append(private, missing...) {
		is[d] = true
	}
	var all []digest.Digest
	for _, d := range ds {
		if is[d] {
			all = append(all, d)
		}
	}
	return all, nil
}

// GetBatch implements Store.
func (v veil) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	_, shared := v.part(ds)
	data, err := v.store.GetBatch(ctx, shared)
	if err != nil || len(shared) == len(ds) {
		return data, err
	}
	all, next := make([][]byte, len(ds)), 0
	for i, d := range ds {
		if next < len(shared) && shared[next] == d {
			all[i] = data[next]
			next++
		}
	}
	return all, nil
}

// NewReader implements Store.
func (v veil) NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error) {
	if v.private.Has(d) {
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), cas.ErrNotFound)
	}
	return v.store.NewReader(ctx, d)
}
