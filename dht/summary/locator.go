package summary

import (
	"context"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Locator is a node's own summary and everybody else's. It implements locate.Locator.
type Locator struct {
	Publisher *Publisher
	Peers     *Peers
}

// Announce implements locate.Locator.
func (l *Locator) Announce(_ context.Context, keys []cid.Key) error { return l.Publisher.Add(keys) }

// Forget implements locate.Locator.
func (l *Locator) Forget(_ context.Context, keys []cid.Key) error { return l.Publisher.Remove(keys) }

// Find implements locate.Locator.
func (l *Locator) Find(_ context.Context, keys []cid.Key) ([][]peer.ID, error) {
	return l.Peers.Find(keys), nil
}
