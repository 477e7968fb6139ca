package actioncache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

// A record's value, big-endian:
//
//	0   version      1 byte, 1
//	1   function     1 byte, of the action's digest and all digests in the result
//	2   action hash  32 bytes
//	34  action size  8 bytes
//	42  root         32 bytes
//	74  stored       8 bytes, nanoseconds since 1970
//	82  result       the rest: a serialised ActionResult, byte for byte as it was stored
//
// The record log below has a checksum over all of it.
const (
	version      = 1
	storedAt     = 2 + digest.HashSize + 8 + len(Root{})
	envelopeSize = storedAt + 8
)

// errUnreadable is a record that is damaged, of a future version or of another key.
var errUnreadable = errors.New("record is unreadable")

// head is the part of the envelope that key alone determines.
func head(key Key) []byte {
	b := make([]byte, 0, envelopeSize)
	hash := key.Action.Hash()
	b = append(b, version, byte(key.Action.Function()))
	b = append(b, hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(key.Action.Size()))
	return append(b, key.Root[:]...)
}

// sealEnvelope makes the value that holds an encoded result.
func sealEnvelope(key Key, now time.Time, encoded []byte) []byte {
	b := binary.BigEndian.AppendUint64(head(key), uint64(now.UnixNano()))
	return append(b, encoded...)
}

// openEnvelope gives the encoded result in a value stored under key. Errors: errUnreadable.
func openEnvelope(key Key, value []byte) ([]byte, error) {
	switch {
	case len(value) < envelopeSize:
		return nil, fmt.Errorf("%w: it has %d bytes", errUnreadable, len(value))
	case value[0] != version:
		return nil, fmt.Errorf("%w: it has version %d", errUnreadable, value[0])
	case !bytes.Equal(value[:storedAt], head(key)):
		return nil, fmt.Errorf("%w: it is of another action", errUnreadable)
	}
	return value[envelopeSize:], nil
}

// recordKey is the hash of everything in key, and a byte for the kind of record.
func recordKey(key Key) (k record.Key) {
	sum := sha256.Sum256(head(key))
	copy(k[:], sum[:])
	k[record.KeySize-1] = 'r'
	return k
}
