package node

import (
	"log/slog"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/buildmesh/buildmesh/dht/kad"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/transport"
)

// kadder is this node's part of the DHT, as long as the mesh is one that needs it.
type kadder struct {
	host host.Host
	log  *slog.Logger

	mu     sync.Mutex // guards what follows
	tried  bool
	closed bool
	l      *kad.Locator
}

// open gives the locator; nil if there cannot be one.
func (k *kadder) open() *kad.Locator {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tried || k.closed {
		return k.l
	}
	k.tried = true
	var err error
	if k.l, err = kad.New(k.host, kad.Names{To: transport.ToLibp2p, From: transport.FromLibp2p}); err != nil {
		k.log.Error("content is found by the one-hop index", "err", err)
	}
	return k.l
}

// opened gives the locator if it was opened.
func (k *kadder) opened() *kad.Locator {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.l
}

// leave ends it until it is opened again.
func (k *kadder) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end()
	k.tried = false
}

// close ends it for good.
func (k *kadder) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end()
	k.closed = true
}

// end leaves the DHT. k.mu is held.
func (k *kadder) end() {
	if k.l == nil {
		return
	}
	if err := k.l.Close(); err != nil {
		k.log.Warn("kad-dht did not end cleanly", "err", err)
	}
	k.l = nil
}

// kindOf gives the kind of the locator in use: the one the configuration names, else what fits the mesh's size.
func kindOf(wish string, sites locate.Sites) func() locate.Kind {
	named := map[string]locate.Kind{"summary": locate.Summaries, "onehop": locate.OneHop, "kad": locate.Kad}
	if kind, is := named[wish]; is {
		return func() locate.Kind { return kind }
	}
	return (&locate.Sizer{Sites: sites}).Kind
}
