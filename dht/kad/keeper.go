package kad

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// askProtocol is the question what of the keys one announced still holds: a count of two bytes, the keys; one byte a key back.
const askProtocol = protocol.ID("/buildmesh/announced/1")

// askPatience bounds one question at the side that answers.
const askPatience = 5 * time.Second

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
func (k *keeper) serve(s network.Stream) {
	if err := s.SetDeadline(time.Now().Add(askPatience)); err != nil {
		s.Reset()
		return
	}
	if err := k.answer(s, s); err != nil {
		s.Reset()
		return
	}
	s.Close()
}

// answer reads one question and answers it.
func (k *keeper) answer(from io.Reader, to io.Writer) error {
	r := bufio.NewReader(from)
	var count uint16
	if err := binary.Read(r, binary.BigEndian, &count); err != nil {
		return err
	}
	if count > locate.MaxBatch {
		return fmt.Errorf("asked for %d keys", count)
	}
	answer := make([]byte, 0, 64)
	var key cid.Key
	for range count {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return err
		}
		var is byte
		k.mu.RLock()
		if _, known := k.keys[key]; known {
			is = 1
		}
		k.mu.RUnlock()
		answer = append(answer, is)
	}
	_, err := to.Write(answer)
	return err
}

// ask asks a peer which of keys it has announced and not taken back.
func (l *Locator) ask(ctx context.Context, id peer.ID, keys []cid.Key) ([]bool, error) {
	has := make([]bool, 0, len(keys))
	err := locate.Batches(keys, func(_ int, piece []cid.Key) error {
		s, err := l.host.NewStream(ctx, l.names.To(id), askProtocol)
		if err != nil {
			return err
		}
		defer s.Reset()
		if until, bounded := ctx.Deadline(); bounded {
			if err := s.SetDeadline(until); err != nil {
				return err
			}
		}
		question := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(piece)*cid.KeySize), uint16(len(piece)))
		for i := range piece {
			question = append(question, piece[i][:]...)
		}
		if _, err := s.Write(question); err != nil {
			return err
		}
		answer := make([]byte, len(piece))
		if _, err := io.ReadFull(s, answer); err != nil {
			return err
		}
		for _, b := range answer {
			has = append(has, b == 1)
		}
		return nil
	})
	return has, err
}
