package trust

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

const (
	// Lifetime is how long a certificate holds at most.
	Lifetime = 30 * 24 * time.Hour
	// Skew is how far two clocks may be apart before certificates are refused for it.
	Skew = 48 * time.Hour
	// MaxCertificate is the size of the largest certificate in bytes.
	MaxCertificate = 1 + 2*32 + 2*5 + 1 + 1 + MaxName + 1 + MaxSite + ed25519.SignatureSize
)

const certificatePurpose purpose = "buildmesh certificate"

// Roles say what a member may be for others.
type Roles uint8

// Executor: actions of others may run there, and its receipts count.
const Executor Roles = 1

// Certificate says that Peer is a member. Times are whole seconds.
type Certificate struct {
	Peer      peer.ID
	Issuer    peer.ID // the root or a steward
	Issued    time.Time
	Expires   time.Time
	Roles     Roles
	Name      string // shown to people; at most MaxName bytes
	Site      string // where it stands; peers of one site are near; at most MaxSite bytes; may be empty
	Signature [ed25519.SignatureSize]byte
}

// Issue makes a certificate for what c says, signed by issuer for the mesh of root. It begins at now
// and ends after Lifetime; Issuer, Issued, Expires and Signature of c do not count.
func Issue(c Certificate, root peer.ID, issuer signer, now time.Time) *Certificate {
	c.Issuer = issuer.ID()
	c.Issued = now.UTC().Truncate(time.Second)
	c.Expires = c.Issued.Add(Lifetime)
	c.Name, c.Site = Clean(c.Name, MaxName), Clean(c.Site, MaxSite)
	c.Signature = [ed25519.SignatureSize]byte(issuer.Sign(certificatePurpose.message(root, c.body())))
	return &c
}

// body is everything but the signature.
func (c *Certificate) body() []byte {
	b := make([]byte, 0, MaxCertificate)
	b = append(b, format)
	b = append(b, c.Peer[:]...)
	b = append(b, c.Issuer[:]...)
	b = appendTime(b, c.Issued)
	b = appendTime(b, c.Expires)
	b = append(b, byte(c.Roles))
	b = appendText(b, c.Name)
	return appendText(b, c.Site)
}

// Marshal is the encoding, about 150 bytes.
func (c *Certificate) Marshal() []byte { return append(c.body(), c.Signature[:]...) }

// ParseCertificate reads an encoding. It verifies nothing: Charter.Check does. Errors wrap ErrMalformed.
func ParseCertificate(data []byte) (*Certificate, error) {
	r := &reader{rest: data}
	r.format()
	c := &Certificate{
		Peer: r.id("peer"), Issuer: r.id("issuer"), Issued: r.time("issued"), Expires: r.time("expires"),
		Roles: Roles(r.take(1, "roles")[0]), Name: r.text(MaxName, "name"), Site: r.text(MaxSite, "site"),
		Signature: r.signature(),
	}
	if r.err != nil {
		return nil, fmt.Errorf("certificate: %w", r.err)
	}
	return c, nil
}

// RenewAt is when the certificate should be renewed: a third of its life is left then.
func (c *Certificate) RenewAt() time.Time { return c.Expires.Add(-Lifetime / 3) }

// timely says whether the certificate holds at now, as far as time goes.
func (c *Certificate) timely(now time.Time) error {
	switch {
	case !now.Before(c.Expires):
		return fmt.Errorf("on %s: %w", c.Expires.Format(time.RFC3339), ErrExpired)
	case c.Issued.After(now.Add(Skew)):
		return fmt.Errorf("on %s: %w", c.Issued.Format(time.RFC3339), ErrNotYet)
	case c.Expires.Sub(c.Issued) > Lifetime || !c.Issued.Before(c.Expires):
		return fmt.Errorf("from %s to %s: %w", c.Issued.Format(time.RFC3339), c.Expires.Format(time.RFC3339), ErrMalformed)
	}
	return nil
}
