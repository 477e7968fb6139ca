package kad

import (
	"context"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// askProtocol is the question what of the keys one announced still holds: one byte a key back.
const askProtocol = protocol.ID("/buildmesh/announced/1")

// keeper is what this node has announced and not taken back. Safe for concurrent use.
type keeper struct {
	mu   sync.RWMutex // guards keys
	keys map[cid.Key]struct{}
}

func newKeeper() *keeper { return &keeper{keys: map[cid.Key]struct{}{}} }

func (k *keeper) add(keys []cid.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		k.keys[key] = struct{}{}
	}
}

func (k *keeper) remove(keys []cid.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		delete(k.keys, key)
	}
}

// serve answers one stream.
func (k *keeper) serve(s network.Stream) { serve(s, k.answer) }

// answer reads one question and answers it.
func (k *keeper) answer(from io.Reader, to io.Writer) error {
	keys, err := readKeys(from)
	if err != nil {
		return err
	}
	answer := make([]byte, len(keys))
	k.mu.RLock()
	for i, key := range keys {
		if _, known := k.keys[key]; known {
			answer[i] = 1
		}
	}
	k.mu.RUnlock()
	_, err = to.Write(answer)
	return err
}

// ask asks a peer which of keys it has announced and not taken back.
func (l *Locator) ask(ctx context.Context, id peer.ID, keys []cid.Key) ([]bool, error) {
	has := make([]bool, 0, len(keys))
	err := locate.Batches(keys, func(_ int, piece []cid.Key) error {
		answer, err := caller{l.host}.exchange(ctx, l.names.To(id), askProtocol, piece, len(piece))
		if err != nil {
			return err
		}
		for _, b := range answer {
			has = append(has, b == 1)
		}
		return nil
	})
	return has, err
}
