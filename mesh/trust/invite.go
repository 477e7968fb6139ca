package trust

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

const (
	// MaxUses is how many peers one invite may admit.
	MaxUses = 1000
	// MaxInvite is how long an invite may hold.
	MaxInvite = 7 * 24 * time.Hour
)

const (
	invitePurpose purpose = "buildmesh invite"
	joinPurpose   purpose = "buildmesh join"
)

// Invite says that whoever has the private half of Key may be admitted, Uses times until Expires.
type Invite struct {
	Key       peer.ID
	Issuer    peer.ID // a steward
	Expires   time.Time
	Uses      int
	Roles     Roles // of who is admitted
	Signature [ed25519.SignatureSize]byte
}

// NewInvite makes an invite signed by issuer for the mesh of root. Key, Expires, Uses and Roles of i count.
func NewInvite(i Invite, root peer.ID, issuer signer) *Invite {
	i.Issuer = issuer.ID()
	i.Expires = i.Expires.UTC().Truncate(time.Second)
	i.Signature = [ed25519.SignatureSize]byte(issuer.Sign(invitePurpose.message(root, i.body())))
	return &i
}

// body is everything but the signature.
func (i *Invite) body() []byte {
	b := append(make([]byte, 0, 160), format)
	b = append(b, i.Key[:]...)
	b = append(b, i.Issuer[:]...)
	b = appendTime(b, i.Expires)
	b = binary.AppendUvarint(b, uint64(i.Uses))
	return append(b, byte(i.Roles))
}

// Marshal is the encoding.
func (i *Invite) Marshal() []byte { return append(i.body(), i.Signature[:]...) }

// ParseInvite reads an encoding; Charter.CheckInvite verifies it. Errors wrap ErrMalformed.
func ParseInvite(data []byte) (*Invite, error) {
	r := &reader{rest: data}
	r.format()
	i := &Invite{
		Key: r.id("key"), Issuer: r.id("issuer"), Expires: r.time("expires"), Uses: int(r.number(math.MaxInt32, "uses")),
		Roles: Roles(r.take(1, "roles")[0]), Signature: r.signature(),
	}
	if r.err != nil {
		return nil, fmt.Errorf("invite: %w", r.err)
	}
	return i, nil
}

// CheckInvite says whether an invite that admitted used peers so far may admit one more at now: nil,
// or an error that wraps ErrForged, ErrStranger, ErrExpired or ErrUsed.
func (c *Charter) CheckInvite(i *Invite, used int, now time.Time) error {
	switch {
	case !c.IsSteward(i.Issuer):
		return fmt.Errorf("invite by %s: %w", i.Issuer.Short(), ErrStranger)
	case !i.Issuer.Verify(invitePurpose.message(c.Root, i.body()), i.Signature[:]):
		return fmt.Errorf("invite by %s: %w", i.Issuer.Short(), ErrForged)
	case !now.Before(i.Expires):
		return fmt.Errorf("invite: %w", ErrExpired)
	case used >= i.Uses:
		return fmt.Errorf("invite for %d: %w", i.Uses, ErrUsed)
	}
	return nil
}

// JoinProof is what a joiner signs with the invite's key: that this peer asks this steward to be
// admitted. It names both, so that nobody can pass it on.
func JoinProof(invite signer, joiner, steward peer.ID) []byte {
	return invite.Sign(joinPurpose.message(invite.ID(), append(joiner[:], steward[:]...)))
}

// CheckJoin verifies a JoinProof for the invite with this key.
func CheckJoin(invite, joiner, steward peer.ID, proof []byte) error {
	if !invite.Verify(joinPurpose.message(invite, append(joiner[:], steward[:]...)), proof) {
		return fmt.Errorf("request of %s to join: %w", joiner.Short(), ErrForged)
	}
	return nil
}
