package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// MaxSeeds is how many addresses a code carries.
const MaxSeeds = 4

// Code is what a person types to join. Who sees it before it is used can join instead.
type Code struct {
	Root    Hash     // of the mesh
	Steward Hash     // of the member that made the code and admits
	Key     [16]byte // the invite's private key is made from it
	Seeds   []netip.AddrPort
}

// NewCode makes a code with a new key. At most MaxSeeds addresses are taken.
func NewCode(root, steward peer.ID, seeds []netip.AddrPort) (*Code, error) {
	c := &Code{Root: HashOf(root), Steward: HashOf(steward), Seeds: seeds[:min(len(seeds), MaxSeeds)]}
	if _, err := rand.Read(c.Key[:]); err != nil {
		return nil, err
	}
	return c, nil
}

// Invite is the invite's key pair.
func (c *Code) Invite() *peer.Identity {
	seed := sha256.Sum256(append([]byte("buildmesh invite key\x00"), c.Key[:]...))
	return peer.FromSeed([ed25519.SeedSize]byte(seed))
}

// letters are the digits and lower-case letters without i, l, o and u (Crockford's base 32).
var letters = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// codePrefix begins every code.
const codePrefix = "bm"

// String is the text: "bm", then about 110 digits and letters, of which the last few are a checksum.
func (c *Code) String() string {
	b := append(make([]byte, 0, 80), format)
	b = append(b, c.Root[:]...)
	b = append(b, c.Steward[:]...)
	b = append(b, c.Key[:]...)
	for _, a := range c.Seeds {
		ip := a.Addr().Unmap().AsSlice()
		b = append(append(b, byte(len(ip))), ip...)
		b = append(b, byte(a.Port()>>8), byte(a.Port()))
	}
	return codePrefix + letters.EncodeToString(append(b, checksum(b)...))
}

// checksum finds a code that was mistyped.
func checksum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte("buildmesh code\x00"), b...))
	return sum[:4]
}

// ParseCode reads what a person typed: capitals, spaces and dashes do not matter. Errors wrap ErrMalformed.
func ParseCode(s string) (*Code, error) {
	malformed := fmt.Errorf("join code: %w; copy it whole, it begins with %s", ErrMalformed, codePrefix)
	if len(s) > 1024 {
		return nil, malformed
	}
	s = strings.NewReplacer(" ", "", "-", "", "\n", "", "\t", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(s))
	s, found := strings.CutPrefix(s, codePrefix)
	data, err := letters.DecodeString(s)
	// The last letter may have bits to spare; a code has one spelling only.
	if !found || err != nil || len(data) < 4 || letters.EncodeToString(data) != s {
		return nil, malformed
	}
	body, sum := data[:len(data)-4], data[len(data)-4:]
	if string(checksum(body)) != string(sum) {
		return nil, malformed
	}
	r := &reader{rest: body}
	r.format()
	c := &Code{Root: Hash(r.take(16, "root")), Steward: Hash(r.take(16, "steward")), Key: [16]byte(r.take(16, "key"))}
	for len(r.rest) > 0 {
		ip, ok := netip.AddrFromSlice(r.take(int(r.take(1, "address")[0]), "address"))
		port := r.take(2, "port")
		if !ok || ip.Is4In6() || len(c.Seeds) == MaxSeeds {
			r.fail("address")
		}
		c.Seeds = append(c.Seeds, netip.AddrPortFrom(ip, uint16(port[0])<<8|uint16(port[1])))
	}
	if r.err != nil {
		return nil, malformed
	}
	return c, nil
}
