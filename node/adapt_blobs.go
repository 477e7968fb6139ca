package node

import (
	"context"
	"errors"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/share"
)

// stageBlobs is the store as exec/stage asks for it.
type stageBlobs struct{ *cas.Store }

// Pin gives the release of a pin as a function.
func (s stageBlobs) Pin(ds []digest.Digest) (release func(), missing []digest.Digest) {
	pin, missing := s.Store.Pin(ds)
	return pin.Release, missing
}

// bridgeBlobs is the store as node/bridge asks for it.
type bridgeBlobs struct {
	share.Whole
	store *cas.Store
}

// Pin implements bridge.Blobs.
func (b bridgeBlobs) Pin(ds []digest.Digest) (*cas.Pin, []digest.Digest) { return b.store.Pin(ds) }

// runBlobs is the store as exec/run and exec/collect ask for it.
type runBlobs struct{ share.Whole }

// PutAll stores all blobs or tells why one could not be stored.
func (s runBlobs) PutAll(ctx context.Context, ds []digest.Digest, data [][]byte) error {
	blobs := make([]cas.Blob, len(ds))
	for i, d := range ds {
		blobs[i] = cas.Blob{Digest: d, Data: data[i]}
	}
	return errors.Join(s.PutBatch(ctx, blobs)...)
}
