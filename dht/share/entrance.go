package share

import (
	"context"
	"io"
	"os"
	"slices"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Whole is the local store, to read from and to write to.
type Whole interface {
	Store
	Contains(d digest.Digest) bool
	PutBatch(ctx context.Context, blobs []cas.Blob) []error
	NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error)
	PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error)
}

// Behind is the store behind closed doors: what comes in is private, unless it was here and shared before.
type Behind struct {
	Whole
	Private *Private
	Why     Reason
}

// hide marks those of ds that nobody shares yet. It goes before they come in.
func (b Behind) hide(ds ...digest.Digest) error {
	return b.Private.Hide(slices.DeleteFunc(ds, func(d digest.Digest) bool { return b.Contains(d) && !b.Private.Has(d) }), b.Why)
}

// PutBatch stores blobs that are private from before they are visible.
func (b Behind) PutBatch(ctx context.Context, blobs []cas.Blob) []error {
	if err := b.hide(digestsOf(blobs)...); err != nil {
		return slices.Repeat([]error{err}, len(blobs))
	}
	return b.Whole.PutBatch(ctx, blobs)
}

// NewWriter takes one blob, which is private already.
func (b Behind) NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error) {
	if err := b.hide(d); err != nil {
		return nil, err
	}
	return b.Whole.NewWriter(ctx, d)
}

// PutFile stores a file, whose digest must be known before it is visible.
func (b Behind) PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	d, err := ofFile(fn, path)
	if err == nil {
		err = b.hide(d)
	}
	if err != nil {
		return digest.Digest{}, err
	}
	return b.Whole.PutFile(ctx, fn, path)
}

// ofFile is the digest of a file.
func ofFile(fn digest.Function, path string) (digest.Digest, error) {
	file, err := os.Open(path)
	if err != nil {
		return digest.Digest{}, err
	}
	defer file.Close()
	h := fn.NewHasher()
	if _, err := io.Copy(h, file); err != nil {
		return digest.Digest{}, err
	}
	return h.Digest(), nil
}

// Named is the store as clients of a shared instance fill it: what they name is not private by instance any more. They are
// the owner's, and would upload what is said to be missing.
type Named struct {
	Whole
	Private *Private
}

// Missing implements Store.
func (n Named) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	n.Private.marks.clear(ds, ByInstance)
	return n.Whole.Missing(ctx, ds)
}

// PutBatch stores blobs.
func (n Named) PutBatch(ctx context.Context, blobs []cas.Blob) []error {
	n.Private.marks.clear(digestsOf(blobs), ByInstance)
	return n.Whole.PutBatch(ctx, blobs)
}

// NewWriter takes one blob.
func (n Named) NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error) {
	n.Private.marks.clear([]digest.Digest{d}, ByInstance)
	return n.Whole.NewWriter(ctx, d)
}

// Open is the store as the mesh, and shared actions, see and fill it. What is private is absent, so that nobody learns of it
// by having this node use it; it is shared once all of its bytes have come this way.
type Open struct {
	Whole
	Private *Private
}

// Missing implements Store.
func (o Open) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	return veil{o.Whole, o.Private}.Missing(ctx, ds)
}

// Contains reports whether d is here for others too.
func (o Open) Contains(d digest.Digest) bool { return !o.Private.Has(d) && o.Whole.Contains(d) }

// GetBatch implements Store.
func (o Open) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	return veil{o.Whole, o.Private}.GetBatch(ctx, ds)
}

// NewReader implements Store.
func (o Open) NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error) {
	return veil{o.Whole, o.Private}.NewReader(ctx, d)
}

// PutBatch stores blobs: those that have come whole are shared.
func (o Open) PutBatch(ctx context.Context, blobs []cas.Blob) []error {
	errs := o.Whole.PutBatch(ctx, blobs)
	var whole []digest.Digest
	for i, b := range blobs {
		if errs == nil || errs[i] == nil {
			whole = append(whole, b.Digest)
		}
	}
	o.Private.marks.clear(whole, ByName)
	return errs
}

// NewWriter takes one blob, which is shared when it is whole.
func (o Open) NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error) {
	w, err := o.Whole.NewWriter(ctx, d)
	if err == nil {
		w.Then(func() { o.Private.marks.clear([]digest.Digest{d}, ByName) })
	}
	return w, err
}

// Put stores one blob.
func (o Open) Put(ctx context.Context, d digest.Digest, data []byte) error {
	if errs := o.PutBatch(ctx, []cas.Blob{{Digest: d, Data: data}}); errs != nil {
		return errs[0]
	}
	return nil
}

// PutFile stores a file.
func (o Open) PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	d, err := o.Whole.PutFile(ctx, fn, path)
	if err == nil {
		o.Private.marks.clear([]digest.Digest{d}, ByName)
	}
	return d, err
}

func digestsOf(blobs []cas.Blob) []digest.Digest {
	ds := make([]digest.Digest, len(blobs))
	for i, b := range blobs {
		ds[i] = b.Digest
	}
	return ds
}
