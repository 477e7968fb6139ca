package member

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
)

// The sentinels callers branch on.
var (
	ErrNotSteward = errors.New("this node is no steward of the mesh")
	ErrUnknown    = errors.New("not known as a member")
	ErrNotAlone   = errors.New("this node is in a mesh with others")
)

// keepSecrets is how many epochs' secrets are kept: what was encrypted a moment before a change can be
// read a moment after it.
const keepSecrets = 2

// Options say who the node is for people.
type Options struct {
	Name string // of the node
	Site string // where it stands; may be empty
	Now  func() time.Time
}

// Change is something others must act on.
type Change struct {
	Moved bool      // another mesh: everything known of peers is void
	Out   []peer.ID // members no more: close what is open
	Epoch uint64    // of the charter
}

// Seat is this node's place in a mesh.
type Seat struct {
	dir      string
	identity *peer.Identity
	options  Options
	now      func() time.Time

	mu          sync.Mutex // guards all below and the files
	charter     *trust.Charter
	certificate *trust.Certificate
	secrets     []sealed // newest first; the first may be of an older epoch than the charter
	index       trust.Secret
	members     map[peer.ID]*trust.Certificate
	ledger      ledger
	watchers    []func(Change)
}

// Open reads the seat in dir, or founds a mesh of one there.
func Open(dir string, identity *peer.Identity, o Options) (*Seat, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open membership: %w", err)
	}
	s := &Seat{dir: dir, identity: identity, options: o, now: o.Now, members: make(map[peer.ID]*trust.Certificate)}
	err := s.readSeat()
	if errors.Is(err, fs.ErrNotExist) {
		_, err = s.Found(trust.Clean(o.Name, trust.MaxName), "")
	}
	if err == nil {
		err = s.readRest()
	}
	if err != nil {
		return nil, fmt.Errorf("open membership: %w", err)
	}
	return s, nil
}

// Watch calls f after every change, from the goroutine that made it. f must not change the Seat.
func (s *Seat) Watch(f func(Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, f)
}

// tell calls the watchers. s.mu must not be held.
func (s *Seat) tell(c Change) {
	s.mu.Lock()
	watchers := slices.Clone(s.watchers)
	s.mu.Unlock()
	for _, f := range watchers {
		f(c)
	}
}

// ID is this node's peer id.
func (s *Seat) ID() peer.ID { return s.identity.ID() }

// Charter is the newest charter known. It must not be changed.
func (s *Seat) Charter() *trust.Charter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.charter
}

// Certificate is this node's own. It must not be changed.
func (s *Seat) Certificate() *trust.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certificate
}

// Secrets are those of the newest epochs known, newest first. complete is false when the charter is
// newer than all of them: ask another member.
func (s *Seat) Secrets() (secrets []trust.Secret, complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.secrets {
		secrets = append(secrets, e.Secret)
	}
	return secrets, len(s.secrets) > 0 && s.secrets[0].Epoch == s.charter.Epoch
}

// Index is the secret under which members of this mesh name content to each other. It lasts as long as the mesh: a new
// charter changes the epoch's secret, and not this one.
func (s *Seat) Index() trust.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index
}

// Learn verifies a certificate and remembers its bearer; that the bearer is its peer, the caller knows
// from the connection or takes as a hint. Errors are those of trust.Charter.Check.
func (s *Seat) Learn(c *trust.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.members[c.Peer]
	if old == nil || *old != *c {
		if err := s.charter.Check(c, s.now()); err != nil {
			return err
		}
		if old != nil && old.Issued.After(c.Issued) {
			return nil // an older one that still holds
		}
		s.members[c.Peer] = c
		s.writeMembers()
		return nil
	}
	return s.holds(c)
}

// holds says whether a certificate that was verified before still holds. s.mu must be held.
func (s *Seat) holds(c *trust.Certificate) error {
	if now := s.now(); !now.Before(c.Expires) {
		return fmt.Errorf("certificate of %s (%s): %w", c.Name, c.Peer.Short(), trust.ErrExpired)
	}
	return nil
}

// Admits says why a peer is not let in: it showed no certificate yet (ErrUnknown), or its certificate
// holds no more. nil: it is a member.
func (s *Seat) Admits(id peer.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.members[id]
	if c == nil {
		return fmt.Errorf("peer %s: %w", id.Short(), ErrUnknown)
	}
	return s.holds(c)
}

// Members are the certificates seen that still hold, this node's own first, then by name.
func (s *Seat) Members() []*trust.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*trust.Certificate
	for _, c := range s.members {
		if c.Peer != s.identity.ID() && s.holds(c) == nil {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *trust.Certificate) int {
		if a.Name != b.Name {
			return slices.Compare([]byte(a.Name), []byte(b.Name))
		}
		return slices.Compare(a.Peer[:], b.Peer[:])
	})
	return slices.Insert(out, 0, s.certificate)
}

// Adopt takes a newer charter of the same mesh, and the secret of its epoch when it is known. A charter
// that is not newer changes nothing, but a secret that was missing is taken. Errors: trust.ErrStranger,
// trust.ErrForged.
func (s *Seat) Adopt(c *trust.Charter, secret *trust.Secret) error {
	if secret != nil && secret.Hash() != c.Secret {
		return fmt.Errorf("secret of epoch %d: %w", c.Epoch, trust.ErrForged)
	}
	s.mu.Lock()
	change, err := s.adopt(c, secret)
	s.mu.Unlock()
	if err == nil && change != nil {
		s.tell(*change)
	}
	return err
}

// adopt is Adopt with s.mu held; a nil change means that nothing changed.
func (s *Seat) adopt(c *trust.Charter, secret *trust.Secret) (*Change, error) {
	if err := c.Supersedes(s.charter); errors.Is(err, trust.ErrOlder) {
		if c.Epoch != s.charter.Epoch || secret == nil || len(s.secrets) > 0 && s.secrets[0].Epoch == c.Epoch {
			return nil, nil
		}
	} else if err != nil {
		return nil, err
	}
	secrets := s.secrets
	if secret != nil {
		secrets = slices.Insert(slices.Clone(secrets), 0, sealed{c.Epoch, *secret})
		secrets = secrets[:min(len(secrets), keepSecrets)]
	}
	if err := s.writeSeat(c, s.certificate, secrets); err != nil {
		return nil, err
	}
	s.charter, s.secrets = c, secrets
	change := &Change{Epoch: c.Epoch}
	for id, cert := range s.members {
		if err := c.Check(cert, s.now()); err != nil {
			delete(s.members, id)
			change.Out = append(change.Out, id)
		}
	}
	s.writeMembers()
	return change, nil
}

// Renewed takes a new certificate for this node. Errors are those of trust.Charter.Check.
func (s *Seat) Renewed(c *trust.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Peer != s.identity.ID() {
		return fmt.Errorf("certificate for %s: %w", c.Peer.Short(), trust.ErrForged)
	}
	if err := s.charter.Check(c, s.now()); err != nil {
		return err
	}
	if err := s.writeSeat(s.charter, c, s.secrets); err != nil {
		return err
	}
	s.certificate = c
	return nil
}

// Found founds a mesh of one and moves there. The new root key is written to rootFile, or with an empty
// one into the Seat's directory. Errors: ErrNotAlone.
func (s *Seat) Found(name, rootFile string) (*trust.Charter, error) {
	if err := s.Alone(); err != nil {
		return nil, err
	}
	return s.found(name, rootFile)
}

// found is Found whoever is in the mesh.
func (s *Seat) found(name, rootFile string) (*trust.Charter, error) {
	root, err := trust.NewRoot()
	if err != nil {
		return nil, err
	}
	if rootFile == "" {
		rootFile = s.RootFile()
		if err := s.setAside(); err != nil {
			return nil, err
		}
	}
	if err := root.Save(rootFile); err != nil {
		return nil, err
	}
	if rootFile != s.RootFile() {
		if err := s.setAside(); err != nil {
			return nil, err
		}
	}
	var secret trust.Secret
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	charter := trust.Found(root, name, s.identity.ID(), secret, s.now())
	return charter, s.move(charter, s.issue(s.wish(), charter.Root), secret)
}

// wish is what this node's certificate is to say.
func (s *Seat) wish() trust.Certificate {
	return trust.Certificate{Peer: s.identity.ID(), Name: s.options.Name, Site: s.options.Site, Roles: trust.Executor}
}

// issue signs a certificate with this node's key.
func (s *Seat) issue(c trust.Certificate, root peer.ID) *trust.Certificate {
	return trust.Issue(c, root, s.identity, s.now())
}

// Alone fails with ErrNotAlone when others are in the mesh too.
func (s *Seat) Alone() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.charter == nil {
		return nil
	}
	for id := range s.members {
		if id != s.identity.ID() {
			return fmt.Errorf("mesh %q: %w; leave it first: buildmesh leave", s.charter.Name, ErrNotAlone)
		}
	}
	return nil
}

// Move takes a seat in another mesh. Errors: ErrNotAlone.
func (s *Seat) Move(c *trust.Charter, cert *trust.Certificate, secret trust.Secret) error {
	if err := s.Alone(); err != nil {
		return err
	}
	if secret.Hash() != c.Secret {
		return fmt.Errorf("secret of epoch %d: %w", c.Epoch, trust.ErrForged)
	}
	if err := c.Check(cert, s.now()); err != nil {
		return err
	}
	if err := s.setAside(); err != nil {
		return err
	}
	return s.move(c, cert, secret)
}

// move changes the mesh.
func (s *Seat) move(c *trust.Charter, cert *trust.Certificate, secret trust.Secret) error {
	s.mu.Lock()
	secrets := []sealed{{c.Epoch, secret}}
	if err := s.writeSeat(c, cert, secrets); err != nil {
		s.mu.Unlock()
		return err
	}
	change := Change{Moved: true, Epoch: c.Epoch}
	for id := range s.members {
		change.Out = append(change.Out, id)
	}
	s.charter, s.certificate, s.secrets = c, cert, secrets
	clear(s.members)
	s.ledger = ledger{}
	err := write(s.dir, ledgerFile, s.ledger)
	s.writeMembers()
	s.mu.Unlock()
	s.tell(change)
	return err
}

// Leave gives the seat up and founds a mesh of one. The mesh is not told: a steward can revoke this
// node, or its certificate runs out.
func (s *Seat) Leave() error {
	s.mu.Lock()
	var out []peer.ID
	for id := range s.members {
		out = append(out, id)
	}
	clear(s.members)
	epoch := s.charter.Epoch
	s.mu.Unlock()
	s.tell(Change{Out: out, Epoch: epoch})
	// Not Found: gossip may have brought a certificate back meanwhile. The move drops it.
	_, err := s.found(trust.Clean(s.options.Name, trust.MaxName), "")
	return err
}
