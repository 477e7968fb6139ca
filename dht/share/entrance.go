package share

import (
	"context"
	"io"
	"os"
	"slices"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Filling is the local store, to write to.
type Filling interface {
	// PutBatch stores blobs independently of each other; nil means that all are stored.
	PutBatch(ctx context.Context, blobs []cas.Blob) []error
	// NewWriter takes one blob in order; it is visible only when committed.
	NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error)
	// PutFile stores a file's content.
	PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error)
}

// Whole is the local store, to read from and to write to. What stands around it below needs a Private that is Active.
type Whole interface {
	Store
	Filling
	// Contains reports whether d is present, without touching it.
	Contains(d digest.Digest) bool
}

// Hiding is the store as unshared clients and private actions fill it: what comes in is private, unless it was here and
// shared before.
type Hiding struct {
	Whole
	Private *Private
	Why     Reason
}

// hide marks those of ds that nobody shares yet. It goes before they come in.
func (h Hiding) hide(ds ...digest.Digest) error {
	return h.Private.Hide(slices.DeleteFunc(ds, func(d digest.Digest) bool { return h.Contains(d) && !h.Private.Has(d) }), h.Why)
}

// PutBatch stores blobs that are private from before they are visible.
func (h Hiding) PutBatch(ctx context.Context, blobs []cas.Blob) []error {
	if err := h.hide(digestsOf(blobs)...); err != nil {
		return slices.Repeat([]error{err}, len(blobs))
	}
	return h.Whole.PutBatch(ctx, blobs)
}

// NewWriter takes one blob, which is private already.
func (h Hiding) NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error) {
	if err := h.hide(d); err != nil {
		return nil, err
	}
	return h.Whole.NewWriter(ctx, d)
}

// PutFile stores a file, whose digest must be known before it is visible.
func (h Hiding) PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	d, err := ofFile(fn, path)
	if err == nil {
		err = h.hide(d)
	}
	if err != nil {
		return digest.Digest{}, err
	}
	return h.Whole.PutFile(ctx, fn, path)
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

// Revealing is the store as clients of a shared instance fill it: what they name is not private by instance any more. They are
// the owner's, and would upload what is said to be missing.
type Revealing struct {
	Whole
	Private *Private
}

// Missing implements Store.
func (r Revealing) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	r.Private.marks.clear(ds, ByInstance)
	return r.Whole.Missing(ctx, ds)
}

// PutBatch stores blobs.
func (r Revealing) PutBatch(ctx context.Context, blobs []cas.Blob) []error {
	r.Private.marks.clear(digestsOf(blobs), ByInstance)
	return r.Whole.PutBatch(ctx, blobs)
}

// NewWriter takes one blob.
func (r Revealing) NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error) {
	r.Private.marks.clear([]digest.Digest{d}, ByInstance)
	return r.Whole.NewWriter(ctx, d)
}

// Veiled is the store as the mesh, and shared actions, see and fill it. What is private is absent, so that nobody learns of it
// by having this node use it; it is shared once all of its bytes have come this way.
type Veiled struct {
	Whole
	Private *Private
}

// Missing implements Store.
func (v Veiled) Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	return veil{v.Whole, v.Private}.Missing(ctx, ds)
}

// Contains reports whether d is here for others too.
func (v Veiled) Contains(d digest.Digest) bool { return !v.Private.Has(d) && v.Whole.Contains(d) }

// GetBatch implements Store.
func (v Veiled) GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error) {
	return veil{v.Whole, v.Private}.GetBatch(ctx, ds)
}

// NewReader implements Store.
func (v Veiled) NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error) {
	return veil{v.Whole, v.Private}.NewReader(ctx, d)
}

// PutBatch stores blobs: those that have come whole are shared.
func (v Veiled) PutBatch(ctx context.Context, blobs []cas.Blob) []error {
	errs := v.Whole.PutBatch(ctx, blobs)
	var whole []digest.Digest
	for i, b := range blobs {
		if errs == nil || errs[i] == nil {
			whole = append(whole, b.Digest)
		}
	}
	v.Private.marks.clear(whole, ByName)
	return errs
}

// NewWriter takes one blob, which is shared when it is whole.
func (v Veiled) NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error) {
	w, err := v.Whole.NewWriter(ctx, d)
	if err == nil {
		w.Then(func() { v.Private.marks.clear([]digest.Digest{d}, ByName) })
	}
	return w, err
}

// Put stores one blob.
func (v Veiled) Put(ctx context.Context, d digest.Digest, data []byte) error {
	if errs := v.PutBatch(ctx, []cas.Blob{{Digest: d, Data: data}}); errs != nil {
		return errs[0]
	}
	return nil
}

// PutFile stores a file.
func (v Veiled) PutFile(ctx context.Context, fn digest.Function, path string) (digest.Digest, error) {
	d, err := v.Whole.PutFile(ctx, fn, path)
	if err == nil {
		v.Private.marks.clear([]digest.Digest{d}, ByName)
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
