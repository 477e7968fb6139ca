package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Bounds of a charter.
const (
	MaxStewards = 64
	MaxRevoked  = 4096
	// MaxCharter is the size of the largest charter in bytes.
	MaxCharter = 1 + 32 + 10 + 5 + 1 + MaxName + 32 + 32 + 2 + MaxStewards*37 + 2 + MaxRevoked*37 + ed25519.SignatureSize
)

const charterPurpose purpose = "buildmesh charter"

// Secret is what only members know of an epoch; its keys for other purposes are made from it.
type Secret [32]byte

// Hash is what the charter says of the secret.
func (s Secret) Hash() [32]byte {
	return sha256.Sum256(append([]byte("buildmesh secret\x00"), s[:]...))
}

// For is a key for one purpose, such as "gossip".
func (s Secret) For(use string) [32]byte {
	return sha256.Sum256(append([]byte("buildmesh secret for "+use+"\x00"), s[:]...))
}

// seal covers, and uncovers, what lasts longer than an epoch. A secret is random, used for one epoch, and the charter
// that carries what it covers is signed: a pad of its own is all that is needed.
func (s Secret) seal(covered [32]byte) [32]byte {
	pad := s.For("index seal")
	for i := range covered {
		covered[i] ^= pad[i]
	}
	return covered
}

// Steward is a member that may admit and renew others.
type Steward struct {
	Peer  peer.ID
	Until time.Time // certificates it issued up to then count; zero: it is a steward now
}

// Revocation takes a membership back, for good.
type Revocation struct {
	Peer  peer.ID
	Since time.Time // what it signed from then on is not to be believed; Always: nothing that it ever signed
}

// Always is the Since of who is not to be believed in anything.
var Always = time.Unix(0, 0).UTC()

// Charter is what the root signed last. Treat it as immutable: Amend makes the next one.
type Charter struct {
	Root     peer.ID // the mesh
	Epoch    uint64  // grows by one with every charter
	Issued   time.Time
	Name     string       // of the mesh, public
	Secret   [32]byte     // Secret.Hash of the epoch's secret
	Index    [32]byte     // the secret of OpenIndex, sealed
	Stewards []Steward    // by peer, at most MaxStewards
	Revoked  []Revocation // by peer, at most MaxRevoked

	Signature [ed25519.SignatureSize]byte
}

// Found makes the first charter of a mesh.
func Found(root *Root, name string, steward peer.ID, secret Secret, now time.Time) *Charter {
	c := &Charter{Root: root.ID(), Name: Clean(name, MaxName), Secret: secret.Hash(),
		Index: secret.seal(secret.For("index")), Stewards: []Steward{{Peer: steward}}}
	c.seal(root, 1, now)
	return c
}

// OpenIndex gives the secret under which members name content to each other. It is the same in every epoch, so that what
// was announced before a revocation is found after it. secret is the epoch's; another gives nonsense.
func (c *Charter) OpenIndex(secret Secret) Secret { return secret.seal(c.Index) }

// Amendment is a change of a charter. With Index as it was, and the rest zero, it changes nothing but the epoch.
type Amendment struct {
	Appoint []peer.ID
	Revoke  []Revocation
	Secret  Secret // of the new epoch
	Index   Secret // what OpenIndex gave
}

// Amend makes the next charter. A steward that is revoked ends being one at the time since when it is not believed. If that
// is Always, it is now: those whom it admitted stay members.
func (c *Charter) Amend(root *Root, a Amendment, now time.Time) (*Charter, error) {
	if root.ID() != c.Root {
		return nil, fmt.Errorf("charter of %s: the key is that of another mesh, %s: %w", c.Name, root.ID().Short(), ErrForged)
	}
	next := &Charter{Root: c.Root, Name: c.Name, Secret: a.Secret.Hash(), Index: a.Secret.seal(a.Index),
		Stewards: slices.Clone(c.Stewards), Revoked: slices.Clone(c.Revoked)}
	for _, id := range a.Appoint {
		if _, gone := c.Revocation(id); gone {
			return nil, fmt.Errorf("appoint %s: %w", id.Short(), ErrRevoked)
		}
		next.Stewards = slices.DeleteFunc(next.Stewards, func(s Steward) bool { return s.Peer == id })
		next.Stewards = append(next.Stewards, Steward{Peer: id})
	}
	for _, r := range a.Revoke {
		r.Since = r.Since.UTC().Truncate(time.Second)
		until := r.Since
		if !until.After(Always) {
			until = now.UTC().Truncate(time.Second)
		}
		for i, s := range next.Stewards {
			if s.Peer == r.Peer && (s.Until.IsZero() || s.Until.After(until)) {
				next.Stewards[i].Until = until
			}
		}
		next.Revoked = slices.DeleteFunc(next.Revoked, func(old Revocation) bool { return old.Peer == r.Peer })
		next.Revoked = append(next.Revoked, r)
	}
	if len(next.Stewards) > MaxStewards || len(next.Revoked) > MaxRevoked {
		return nil, fmt.Errorf("charter of %s: at most %d stewards and %d revocations: %w", c.Name, MaxStewards, MaxRevoked, ErrMalformed)
	}
	next.seal(root, c.Epoch+1, now)
	return next, nil
}

// seal orders, dates and signs.
func (c *Charter) seal(root *Root, epoch uint64, now time.Time) {
	slices.SortFunc(c.Stewards, func(a, b Steward) int { return slices.Compare(a.Peer[:], b.Peer[:]) })
	slices.SortFunc(c.Revoked, func(a, b Revocation) int { return slices.Compare(a.Peer[:], b.Peer[:]) })
	c.Epoch, c.Issued = epoch, now.UTC().Truncate(time.Second)
	c.Signature = [ed25519.SignatureSize]byte(root.Sign(charterPurpose.message(c.Root, c.body())))
}

// body is everything but the signature.
func (c *Charter) body() []byte {
	b := append(make([]byte, 0, 256), format)
	b = append(b, c.Root[:]...)
	b = binary.AppendUvarint(b, c.Epoch)
	b = appendTime(b, c.Issued)
	b = appendText(b, c.Name)
	b = append(b, c.Secret[:]...)
	b = append(b, c.Index[:]...)
	b = binary.AppendUvarint(b, uint64(len(c.Stewards)))
	for _, s := range c.Stewards {
		b = append(b, s.Peer[:]...)
		if s.Until.IsZero() {
			b = append(b, 0) // a time of 1970
			continue
		}
		b = appendTime(b, s.Until)
	}
	b = binary.AppendUvarint(b, uint64(len(c.Revoked)))
	for _, r := range c.Revoked {
		b = append(b, r.Peer[:]...)
		b = appendTime(b, r.Since)
	}
	return b
}

// Marshal is the encoding.
func (c *Charter) Marshal() []byte { return append(c.body(), c.Signature[:]...) }

// ParseCharter reads a charter and verifies that its root signed it; whether that is the right root,
// the caller must know. Errors wrap ErrMalformed or ErrForged.
func ParseCharter(data []byte) (*Charter, error) {
	if len(data) > MaxCharter {
		return nil, fmt.Errorf("charter of %d bytes: %w", len(data), ErrMalformed)
	}
	r := &reader{rest: data}
	r.format()
	c := &Charter{Root: r.id("root"), Epoch: r.number(math.MaxInt64, "epoch"), Issued: r.time("issued"), Name: r.text(MaxName, "name")}
	copy(c.Secret[:], r.take(len(c.Secret), "secret"))
	copy(c.Index[:], r.take(len(c.Index), "index"))
	for n := r.number(MaxStewards, "stewards"); n > 0 && r.err == nil; n-- {
		s := Steward{Peer: r.id("steward"), Until: r.time("until")}
		if s.Until.Unix() == 0 {
			s.Until = time.Time{}
		}
		if k := len(c.Stewards); k > 0 && slices.Compare(c.Stewards[k-1].Peer[:], s.Peer[:]) >= 0 {
			r.fail("stewards out of order")
		}
		c.Stewards = append(c.Stewards, s)
	}
	for n := r.number(MaxRevoked, "revocations"); n > 0 && r.err == nil; n-- {
		v := Revocation{Peer: r.id("revoked"), Since: r.time("since")}
		if k := len(c.Revoked); k > 0 && slices.Compare(c.Revoked[k-1].Peer[:], v.Peer[:]) >= 0 {
			r.fail("revocations out of order")
		}
		c.Revoked = append(c.Revoked, v)
	}
	c.Signature = r.signature()
	if r.err != nil {
		return nil, fmt.Errorf("charter: %w", r.err)
	}
	if !c.Root.Verify(charterPurpose.message(c.Root, c.body()), c.Signature[:]) {
		return nil, fmt.Errorf("charter of %s: %w", c.Root.Short(), ErrForged)
	}
	return c, nil
}

// Check says whether the bearer of a certificate is a member at now: nil, or an error that wraps
// ErrForged, ErrStranger, ErrRevoked, ErrExpired, ErrNotYet or ErrMalformed. That the bearer is
// cert.Peer, the caller must know from its connection.
func (c *Charter) Check(cert *Certificate, now time.Time) error {
	if err := c.issued(cert); err != nil {
		return fmt.Errorf("certificate of %s (%s): %w", cert.Name, cert.Peer.Short(), err)
	}
	if _, gone := c.Revocation(cert.Peer); gone {
		return fmt.Errorf("membership of %s (%s): %w", cert.Name, cert.Peer.Short(), ErrRevoked)
	}
	if err := cert.timely(now); err != nil {
		return fmt.Errorf("certificate of %s (%s): %w", cert.Name, cert.Peer.Short(), err)
	}
	return nil
}

// issued checks who signed a certificate.
func (c *Charter) issued(cert *Certificate) error {
	if cert.Issuer != c.Root {
		i := slices.IndexFunc(c.Stewards, func(s Steward) bool { return s.Peer == cert.Issuer })
		if i < 0 || !c.Stewards[i].Until.IsZero() && cert.Issued.After(c.Stewards[i].Until) {
			return fmt.Errorf("issued by %s: %w", cert.Issuer.Short(), ErrStranger)
		}
	}
	if !cert.Issuer.Verify(certificatePurpose.message(c.Root, cert.body()), cert.Signature[:]) {
		return ErrForged
	}
	return nil
}

// IsSteward reports whether a peer may admit and renew others now.
func (c *Charter) IsSteward(id peer.ID) bool {
	return slices.ContainsFunc(c.Stewards, func(s Steward) bool { return s.Peer == id && s.Until.IsZero() })
}

// Revocation is that of a peer, if it was revoked.
func (c *Charter) Revocation(id peer.ID) (Revocation, bool) {
	i, found := slices.BinarySearchFunc(c.Revoked, id, func(r Revocation, id peer.ID) int { return slices.Compare(r.Peer[:], id[:]) })
	if !found {
		return Revocation{}, false
	}
	return c.Revoked[i], true
}

// Believes reports whether what a peer signed at a time may still be believed.
func (c *Charter) Believes(id peer.ID, at time.Time) bool {
	r, gone := c.Revocation(id)
	return !gone || at.Before(r.Since)
}

// Supersedes says whether c may take the place of old: the same mesh and a higher epoch. Errors:
// ErrStranger, ErrOlder.
func (c *Charter) Supersedes(old *Charter) error {
	switch {
	case c.Root != old.Root:
		return fmt.Errorf("charter of %s: %w", c.Root.Short(), ErrStranger)
	case c.Epoch <= old.Epoch:
		return fmt.Errorf("charter of epoch %d, %d is known: %w", c.Epoch, old.Epoch, ErrOlder)
	}
	return nil
}
