package reapi

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// Finder tells which blobs are there.
type Finder interface {
	// Missing gives those of ds that are absent and extends the lifetime of the others.
	Missing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
	// Contains reports whether d is present, without touching it. It is cheap.
	Contains(d digest.Digest) bool
}

// Batches reads and writes many small blobs at once.
type Batches interface {
	// PutBatch stores blobs independently of each other; nil means that all are stored.
	PutBatch(ctx context.Context, blobs []cas.Blob) []error
	// GetBatch gives each blob's content, nil where it is not found. The content belongs to the caller.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
}

// Streams reads and writes one large blob.
type Streams interface {
	// NewWriter takes one blob in order; it is visible only when committed.
	NewWriter(ctx context.Context, d digest.Digest) (*cas.Writer, error)
	// NewReader opens a blob, which stays until the reader is closed.
	NewReader(ctx context.Context, d digest.Digest) (*cas.Reader, error)
}

// Blobs is the store behind the endpoint: *cas.Store, or the mesh's view of it.
type Blobs interface {
	Finder
	Batches
	Streams
}

// Results is the cache of action results as a local client may use it.
type Results interface {
	// Get gives the result of an action. It is complete: every blob it refers to can be read, and
	// their lifetimes were extended. Otherwise the error wraps cas.ErrNotFound. The message
	// is shared and must not be modified.
	Get(ctx context.Context, action digest.Digest) (*repb.ActionResult, error)
	// Put stores a result that a client made.
	Put(ctx context.Context, action digest.Digest, result *repb.ActionResult) error
}
