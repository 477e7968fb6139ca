package actioncache

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Complete reports whether everything a result refers to, by digests of fn, is in the blob store, and
// extends its lifetime. Errors: ErrInvalid, one that says what is missing, the store's.
func (c *Cache) Complete(ctx context.Context, fn digest.Function, result *repb.ActionResult) error {
	blobs, err := c.references(ctx, fn, result)
	if err != nil {
		return err
	}
	missing, err := c.blobs.Missing(ctx, blobs)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %w", errIncomplete, &tree.MissingError{Digests: missing})
	}
	return nil
}

// References lists every blob that a result refers to, each once, whose digests were made by fn. Errors wrap ErrNotFound
// when one that must be read for it is absent, ErrInvalid when the result is malformed.
func (c *Cache) References(ctx context.Context, fn digest.Function, result *repb.ActionResult) ([]digest.Digest, error) {
	blobs, err := c.references(ctx, fn, result)
	if errors.Is(err, errIncomplete) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return blobs, err
}
