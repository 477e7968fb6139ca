package cid

import (
	"encoding/binary"
	"encoding/hex"
	"sync"

	gocid "github.com/ipfs/go-cid"
	multihash "github.com/multiformats/go-multihash"
	"github.com/zeebo/blake3"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// KeySize is the length of a Key in bytes.
const KeySize = 32

// Key is what an index knows a blob or an action result by. It is spread evenly.
type Key [KeySize]byte

// Fingerprint is the part of a key that summaries carry.
func (k Key) Fingerprint() uint64 { return binary.LittleEndian.Uint64(k[:8]) }

// CID is the key in the form kad-dht asks for. It is no content's.
func (k Key) CID() gocid.Cid { return raw(multihash.BLAKE3, k) }

// String is the first 16 hexadecimal digits, for logs and tests.
func (k Key) String() string { return hex.EncodeToString(k[:8]) }

// purpose separates this use of the mesh's secret from all others.
const purpose = "buildmesh 2026-11 key of the content index"

// Keyer makes keys under one mesh's secret. Safe for concurrent use.
type Keyer struct{ hashers sync.Pool } // of *blake3.Hasher, keyed and empty: one takes 10 KiB

// NewKeyer derives the key of the keyed hash from the mesh's secret, which may have any length.
func NewKeyer(secret []byte) *Keyer {
	var key [32]byte
	blake3.DeriveKey(purpose, secret, key[:])
	return &Keyer{hashers: sync.Pool{New: func() any {
		keyed, err := blake3.NewKeyed(key[:])
		if err != nil { // only another length could cause it
			panic("cid: " + err.Error())
		}
		return keyed
	}}}
}

// The kinds of things a key is of.
const (
	kindBlob   = 'b'
	kindResult = 'r'
)

// Blob is the key of a blob.
func (k *Keyer) Blob(d digest.Digest) Key { return k.key(kindBlob, d, nil) }

// Result is the key of the result of an action that was run under a root.
func (k *Keyer) Result(action digest.Digest, root [32]byte) Key {
	return k.key(kindResult, action, root[:])
}

func (k *Keyer) key(kind byte, d digest.Digest, root []byte) (key Key) {
	var message [1 + 1 + digest.HashSize + 8 + 32]byte
	hash := d.Hash()
	b := append(message[:0], kind, byte(d.Function()))
	b = append(b, hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(d.Size()))
	b = append(b, root...)
	h := k.hashers.Get().(*blake3.Hasher)
	defer k.hashers.Put(h)
	h.Reset()
	h.Write(b)
	h.Sum(key[:0])
	return key
}
