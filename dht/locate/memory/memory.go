package memory

import (
	"context"
	"slices"
	"sync"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Mesh is what the nodes of one mesh announced. Safe for concurrent use.
type Mesh struct {
	mu    sync.Mutex // guards noted
	noted map[cid.Key][]peer.ID
}

// New makes a mesh in which nothing was announced.
func New() *Mesh { return &Mesh{noted: map[cid.Key][]peer.ID{}} }

// Node gives the locator of one node.
func (m *Mesh) Node(id peer.ID) *Locator { return &Locator{mesh: m, id: id} }

// Locator is one node's view. It implements locate.Locator.
type Locator struct {
	mesh *Mesh
	id   peer.ID
}

// Announce implements locate.Locator.
func (l *Locator) Announce(ctx context.Context, keys []cid.Key) error {
	l.mesh.mu.Lock()
	defer l.mesh.mu.Unlock()
	for _, k := range keys {
		if !slices.Contains(l.mesh.noted[k], l.id) {
			l.mesh.noted[k] = append(l.mesh.noted[k], l.id)
		}
	}
	return ctx.Err()
}

// Forget implements locate.Locator.
func (l *Locator) Forget(ctx context.Context, keys []cid.Key) error {
	l.mesh.mu.Lock()
	defer l.mesh.mu.Unlock()
	for _, k := range keys {
		l.mesh.noted[k] = slices.DeleteFunc(l.mesh.noted[k], func(id peer.ID) bool { return id == l.id })
	}
	return ctx.Err()
}

// Find implements locate.Locator.
func (l *Locator) Find(ctx context.Context, keys []cid.Key) ([][]peer.ID, error) {
	l.mesh.mu.Lock()
	defer l.mesh.mu.Unlock()
	found := make([][]peer.ID, len(keys))
	for i, k := range keys {
		for _, id := range l.mesh.noted[k] {
			if id != l.id {
				found[i] = append(found[i], id)
			}
		}
	}
	return found, ctx.Err()
}
