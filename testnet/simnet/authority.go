package simnet

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/gossip"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Key is a key pair made from a number.
type Key struct{ private ed25519.PrivateKey }

// NewKey gives the same key for the same number.
func NewKey(n uint64) Key {
	seed := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("simnet"), n))
	return Key{ed25519.NewKeyFromSeed(seed[:])}
}

// ID is the public half.
func (k Key) ID() peer.ID { return peer.ID(k.private.Public().(ed25519.PublicKey)) }

// Sign signs a message.
func (k Key) Sign(message []byte) []byte { return ed25519.Sign(k.private, message) }

// lifetime is how long the authority's certificates hold.
const lifetime = 30 * 24 * time.Hour

// Authority stands in for mesh/trust: it says who is a member of one mesh. It remembers what it verified,
// so that hundreds of nodes in one process do not verify each other's certificates one by one.
type Authority struct {
	root Key

	mu      sync.Mutex // guards all below
	good    map[[sha256.Size]byte]bool
	revoked map[peer.ID]bool
	epoch   uint64
}

// NewAuthority makes the authority of the mesh with a number.
func NewAuthority(n uint64) *Authority {
	return &Authority{root: NewKey(1<<40 + n), good: make(map[[sha256.Size]byte]bool), revoked: make(map[peer.ID]bool), epoch: 1}
}

// Issue makes a certificate: id, expiry, name, signature, padded to the size of the real one.
func (a *Authority) Issue(id peer.ID, name string, expires time.Time) []byte {
	body := append([]byte(nil), id[:]...)
	body = binary.BigEndian.AppendUint64(body, uint64(expires.Unix()))
	body = append(body, fmt.Sprintf("%-16s", name)...)
	body = append(body, make([]byte, 32)...) // an issuer
	return append(body, a.root.Sign(body)...)
}

// Revoke takes a membership back and begins a new epoch.
func (a *Authority) Revoke(id peer.ID) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[id] = true
	a.epoch++
	return a.epoch
}

// errNotMember is what Check finds wrong.
var errNotMember = errors.New("no member of this mesh")

// check verifies a certificate at a time.
func (a *Authority) check(cert []byte, now time.Time) (gossip.Admitted, error) {
	const fixed = 32 + 8 + ed25519.SignatureSize
	if len(cert) < fixed {
		return gossip.Admitted{}, fmt.Errorf("certificate of %d bytes: %w", len(cert), errNotMember)
	}
	body, signature := cert[:len(cert)-ed25519.SignatureSize], cert[len(cert)-ed25519.SignatureSize:]
	sum := sha256.Sum256(cert)
	a.mu.Lock()
	good := a.good[sum]
	a.mu.Unlock()
	if !good && !a.root.ID().Verify(body, signature) {
		return gossip.Admitted{}, fmt.Errorf("forged certificate: %w", errNotMember)
	}
	in := gossip.Admitted{ID: peer.ID(body[:32]), Expires: time.Unix(int64(binary.BigEndian.Uint64(body[32:])), 0)}
	in.Name = string(body[40 : len(body)-32])
	a.mu.Lock()
	defer a.mu.Unlock()
	a.good[sum] = true
	switch {
	case a.revoked[in.ID]:
		return in, fmt.Errorf("%s is revoked: %w", in.Name, errNotMember)
	case now.After(in.Expires):
		return in, fmt.Errorf("certificate of %s expired: %w", in.Name, errNotMember)
	}
	return in, nil
}

// member is the authority as one node asks it. It implements gossip.Admission.
type member struct {
	authority *Authority
	cert      []byte
	clock     func() time.Time
}

func (m *member) Certificate() []byte { return m.cert }

func (m *member) Check(cert []byte) (gossip.Admitted, error) {
	return m.authority.check(cert, m.clock())
}

func (m *member) Epoch() uint64 {
	m.authority.mu.Lock()
	defer m.authority.mu.Unlock()
	return m.authority.epoch
}
