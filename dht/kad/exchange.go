package kad

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
)

// patience bounds one message of keys at the side that answers.
const patience = 5 * time.Second

// caller sends keys to peers: a count of two bytes, the keys; some bytes back.
type caller struct{ host host.Host }

// exchange sends at most locate.MaxBatch keys and gives the answer, of so many bytes.
func (c caller) exchange(ctx context.Context, to lpeer.ID, about protocol.ID, keys []cid.Key, size int) ([]byte, error) {
	s, err := c.host.NewStream(ctx, to, about)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if until, bounded := ctx.Deadline(); bounded {
		if err := s.SetDeadline(until); err != nil {
			return nil, err
		}
	}
	message := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(keys)*cid.KeySize), uint16(len(keys)))
	for i := range keys {
		message = append(message, keys[i][:]...)
	}
	if _, err := s.Write(message); err != nil {
		return nil, err
	}
	answer := make([]byte, size)
	_, err = io.ReadFull(s, answer)
	return answer, err
}

// serve answers one stream.
func serve(s network.Stream, answer func(from io.Reader, to io.Writer) error) {
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		s.Reset()
		return
	}
	if err := answer(s, s); err != nil {
		s.Reset()
		return
	}
	s.Close()
}

// readKeys reads what exchange sends.
func readKeys(from io.Reader) ([]cid.Key, error) {
	r := bufio.NewReader(from)
	var count uint16
	if err := binary.Read(r, binary.BigEndian, &count); err != nil {
		return nil, err
	}
	if count > locate.MaxBatch {
		return nil, fmt.Errorf("a message of %d keys", count)
	}
	var keys []cid.Key // grows as they come
	var key cid.Key
	for range count {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
