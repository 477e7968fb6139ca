package locate

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Locator tells which peers have what.
type Locator interface {
	// Announce says that this node has what the keys are of.
	Announce(ctx context.Context, keys []cid.Key) error
	// Forget takes it back.
	Forget(ctx context.Context, keys []cid.Key) error
	// Find gives for each key the peers said to have it, the best to ask first.
	Find(ctx context.Context, keys []cid.Key) ([][]peer.ID, error)
}

// Member is another peer of the mesh that is alive.
type Member struct {
	ID      peer.ID
	Alive   time.Duration // for how long it has been seen alive without a break
	Site    string        // name of where it is; empty: not known
	Battery bool          // it does not run on mains power
}

// Members is the roster as content needs it: who is alive now, this node left out.
type Members interface {
	Members() []Member
}

// Dialer gives connections to members. Those it gives may be used until they fail, and need not be
// closed.
type Dialer interface {
	// Control is for small calls that somebody waits for.
	Control(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error)
	// Bulk is for blobs.
	Bulk(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error)
}

// MaxBatch is how many keys one message carries at most.
const MaxBatch = 16384

// Batches calls f with the keys in pieces of at most MaxBatch; at is where a piece begins.
func Batches(keys []cid.Key, f func(at int, piece []cid.Key) error) error {
	for at := 0; at < len(keys); at += MaxBatch {
		if err := f(at, keys[at:min(at+MaxBatch, len(keys))]); err != nil {
			return err
		}
	}
	return nil
}
