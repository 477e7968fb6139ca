package gossip

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/hashicorp/memberlist"
)

// Admission is what trust decides. Its methods may be called at any time and must not wait for anything.
type Admission interface {
	// Certificate is this node's own, encoded; at most about 400 bytes.
	Certificate() []byte
	// Check says whose certificate this is, or why it counts for nothing now.
	Check(certificate []byte) (Admitted, error)
	// Epoch is that of the newest revocation list this node knows.
	Epoch() uint64
}

// Admitted is what a certificate that counts says of its bearer.
type Admitted struct {
	ID      peer.ID
	Name    string
	Site    string
	Roles   uint8 // bits of trust.Roles
	Expires time.Time
}

// introduced is an alive message whose card and certificate were found good.
type introduced struct {
	member roster.Member // State and times not set
	card   *card
	until  time.Time // the certificate expires
}

const (
	// maxVerdicts bounds the memory of the door; when it is full it forgets everything.
	maxVerdicts = 2 * roster.MaxMembers
	// refusedFor is how long a refusal is not looked at again.
	refusedFor = 30 * time.Second
)

// door checks who comes in, and remembers what it found: the same message comes many times.
type door struct {
	admission Admission
	label     string

	mu       sync.Mutex // guards verdicts
	verdicts map[[sha256.Size]byte]verdict
}

// verdict is what was found about one message; it holds until a time.
type verdict struct {
	in    *introduced // nil: refused
	err   error
	until time.Time
}

func newDoor(admission Admission, label string) *door {
	return &door{admission: admission, label: label, verdicts: make(map[[sha256.Size]byte]verdict)}
}

// check finds who says that it is alive.
func (d *door) check(n *memberlist.Node) (*introduced, error) {
	now := time.Now()
	key := keyOf(n)
	d.mu.Lock()
	v, known := d.verdicts[key]
	d.mu.Unlock()
	if known && now.Before(v.until) {
		return v.in, v.err
	}
	in, err := d.examine(n)
	v = verdict{in: in, err: err, until: now.Add(refusedFor)}
	if err == nil {
		v.until = in.until
	}
	d.mu.Lock()
	if len(d.verdicts) >= maxVerdicts {
		clear(d.verdicts)
	}
	d.verdicts[key] = v
	d.mu.Unlock()
	return in, err
}

// forget drops all verdicts, as after a new revocation list.
func (d *door) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.verdicts)
}

// keyOf tells messages apart by all that is checked.
func keyOf(n *memberlist.Node) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d %s %x %d ", len(n.Name), n.Name, []byte(n.Addr), n.Port)
	h.Write(n.Meta)
	return [sha256.Size]byte(h.Sum(nil))
}

// examine checks card, certificate and signature.
func (d *door) examine(n *memberlist.Node) (*introduced, error) {
	id, boot, err := parseName(n.Name)
	if err != nil {
		return nil, err
	}
	ip, ok := netip.AddrFromSlice(n.Addr)
	if !ok || n.Port == 0 {
		return nil, fmt.Errorf("%s has no address", id.Short())
	}
	at := netip.AddrPortFrom(ip.Unmap(), n.Port)
	c, err := parseCard(n.Meta)
	if err != nil {
		return nil, fmt.Errorf("card of %s: %w", id.Short(), err)
	}
	admitted, err := d.admission.Check(c.cert)
	if err != nil {
		return nil, err
	}
	if admitted.ID != id {
		return nil, fmt.Errorf("%s shows the certificate of %s (%s)", id.Short(), admitted.Name, admitted.ID.Short())
	}
	if err := c.verify(id, d.label, n.Name, at); err != nil {
		return nil, err
	}
	m := roster.Member{ID: id, Name: admitted.Name, Site: admitted.Site, Roles: admitted.Roles, Gossip: at, Boot: boot}
	if c.control != 0 {
		m.Control = netip.AddrPortFrom(at.Addr(), c.control)
	}
	if c.bulk != 0 {
		m.Bulk = netip.AddrPortFrom(at.Addr(), c.bulk)
	}
	return &introduced{member: m, card: c, until: admitted.Expires}, nil
}
