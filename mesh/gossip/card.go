package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ErrCard is wrapped by every error about metadata that is no card.
var ErrCard = errors.New("malformed card")

const (
	cardVersion   = 1
	flagLeaving   = 1
	signatureSize = 64
	// maxCard is what memberlist lets metadata have.
	maxCard = 512
	// maxCertificate leaves room for everything else in a card.
	maxCertificate = maxCard - signatureSize - 2 - 3*binary.MaxVarintLen64 - 2*2 - 2
	// cardPurpose is the domain the signature of a card is made under.
	cardPurpose = "buildmesh gossip card\x00"
)

// card is what a node says of itself in its metadata. On the wire: version, flags, epoch, held and used
// as uvarints, control and bulk as big-endian uint16, certificate with a uvarint length, what later versions
// add, and last the signature of the certificate's peer over all that, the name and the address.
type card struct {
	leaving bool   // it goes, and says so
	epoch   uint64 // of the revocation list it knows
	held    uint64 // newest epoch whose gossip key it has
	used    uint64 // epoch whose gossip key it encrypts with
	control uint16 // port
	bulk    uint16 // port
	cert    []byte

	signed    []byte // everything before the signature
	signature []byte
}

// Identity signs as this node does; *peer.Identity is one.
type Identity interface {
	ID() peer.ID
	Sign(message []byte) []byte
}

// seal is the encoding of c, signed for a name and an address in the mesh with this label.
func (c *card) seal(by Identity, label, name string, at netip.AddrPort) ([]byte, error) {
	if len(c.cert) > maxCertificate {
		return nil, fmt.Errorf("certificate of %d bytes, at most %d: %w", len(c.cert), maxCertificate, ErrCard)
	}
	b := append(make([]byte, 0, maxCard), cardVersion, 0)
	if c.leaving {
		b[1] |= flagLeaving
	}
	b = binary.AppendUvarint(b, c.epoch)
	b = binary.AppendUvarint(b, c.held)
	b = binary.AppendUvarint(b, c.used)
	b = binary.BigEndian.AppendUint16(b, c.control)
	b = binary.BigEndian.AppendUint16(b, c.bulk)
	b = binary.AppendUvarint(b, uint64(len(c.cert)))
	b = append(b, c.cert...)
	return append(b, by.Sign(cardMessage(b, label, name, at))...), nil
}

// parseCard reads an encoding; it verifies nothing. The result shares data. Errors wrap ErrCard.
func parseCard(data []byte) (*card, error) {
	if len(data) > maxCard || len(data) < 2+signatureSize {
		return nil, fmt.Errorf("%d bytes: %w", len(data), ErrCard)
	}
	c := &card{signed: data[:len(data)-signatureSize], signature: data[len(data)-signatureSize:]}
	if c.signed[0] != cardVersion {
		return nil, fmt.Errorf("version %d: %w", c.signed[0], ErrCard)
	}
	c.leaving = c.signed[1]&flagLeaving != 0
	rest := c.signed[2:]
	number := func() (n uint64) {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			rest = nil
			return 0
		}
		rest = rest[size:]
		return n
	}
	c.epoch, c.held, c.used = number(), number(), number()
	if len(rest) < 4 {
		return nil, fmt.Errorf("too short: %w", ErrCard)
	}
	c.control, c.bulk = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	rest = rest[4:]
	n := number()
	if n == 0 || n > uint64(len(rest)) {
		return nil, fmt.Errorf("certificate of %d bytes: %w", n, ErrCard)
	}
	c.cert = rest[:n] // what follows is a later version's
	return c, nil
}

// verify says whether the peer signed the card for this label, name and address.
func (c *card) verify(by peer.ID, label, name string, at netip.AddrPort) error {
	if !by.Verify(cardMessage(c.signed, label, name, at), c.signature) {
		return fmt.Errorf("not signed by %s for %s at %s: %w", by.Short(), name, at, ErrCard)
	}
	return nil
}

// cardMessage is what the signature of a card covers.
func cardMessage(body []byte, label, name string, at netip.AddrPort) []byte {
	m := append(make([]byte, 0, 2*maxCard), cardPurpose...)
	for _, part := range []string{label, name, at.String()} {
		m = binary.AppendUvarint(m, uint64(len(part)))
		m = append(m, part...)
	}
	return append(m, body...)
}
