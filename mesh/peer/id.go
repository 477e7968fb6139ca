package peer

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
)

// ErrInvalid is wrapped by every error about text that is no peer id.
var ErrInvalid = errors.New("invalid peer id")

// prefix stands before the public key in an ID's bytes: multihash identity (0x00) of 36 bytes (0x24),
// which are the protobuf PublicKey{type (field 1): Ed25519 (1), data (field 2): 32 bytes}.
var prefix = [...]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// ID names a peer: its Ed25519 public key. The zero ID names nobody.
type ID [ed25519.PublicKeySize]byte

// Parse reads the text form. Errors wrap ErrInvalid.
func Parse(s string) (ID, error) {
	raw, err := decode58(s)
	if err != nil {
		return ID{}, fmt.Errorf("peer id %q: %w: %w", s, err, ErrInvalid)
	}
	key, found := bytes.CutPrefix(raw, prefix[:])
	if !found || len(key) != ed25519.PublicKeySize {
		return ID{}, fmt.Errorf("peer id %q is not an Ed25519 key: %w", s, ErrInvalid)
	}
	return ID(key), nil
}

// String is the text form, 52 characters that begin with 12D3KooW.
func (id ID) String() string { return encode58(append(prefix[:], id[:]...)) }

// Short is an abbreviation for people: the last eight characters.
func (id ID) Short() string {
	s := id.String()
	return s[len(s)-8:]
}

// IsZero reports whether the ID names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// Verify reports whether the peer signed message.
func (id ID) Verify(message, signature []byte) bool {
	return ed25519.Verify(id[:], message, signature)
}
