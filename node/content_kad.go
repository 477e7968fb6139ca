package node

import (
	"log/slog"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/buildmesh/buildmesh/dht/kad"
	"github.com/buildmesh/buildmesh/mesh/transport"
)

// kadPart is this node's part of the DHT, as long as the mesh is one that needs it.
type kadPart struct {
	host host.Host
	log  *slog.Logger

	mu     sync.Mutex // guards what follows
	tried  bool
	closed bool
	joined *kad.Locator // nil: it is no part of it
}

// open gives the locator; nil if there cannot be one.
func (k *kadPart) open() *kad.Locator {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tried || k.closed {
		return k.joined
	}
	k.tried = true
	var err error
	if k.joined, err = kad.New(k.host, kad.Names{To: transport.ToLibp2p, From: transport.FromLibp2p}); err != nil {
		k.log.Error("content is found by the one-hop index", "err", err)
	}
	return k.joined
}

// opened gives the locator if it was opened.
func (k *kadPart) opened() *kad.Locator {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.joined
}

// leave ends it until it is opened again.
func (k *kadPart) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end()
	k.tried = false
}

// close ends it for good.
func (k *kadPart) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end()
	k.closed = true
}

// end leaves the DHT. k.mu is held.
func (k *kadPart) end() {
	if k.joined == nil {
		return
	}
	if err := k.joined.Close(); err != nil {
		k.log.Warn("kad-dht did not end cleanly", "err", err)
	}
	k.joined = nil
}
