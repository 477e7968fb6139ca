package member

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
)

// ledger is the invites this node gave.
type ledger struct {
	Entries []entry `json:"entries"`
}

// entry is one invite and whom it admitted.
type entry struct {
	Invite []byte    `json:"invite"` // trust.Invite
	Peers  []peer.ID `json:"peers"`
}

// IsSteward reports whether this node may admit others.
func (s *Seat) IsSteward() bool { return s.Charter().IsSteward(s.identity.ID()) }

// InviteOptions say whom an invite admits.
type InviteOptions struct {
	Uses     int           // 1 to trust.MaxUses
	Lifetime time.Duration // up to trust.MaxInvite
	Seeds    []netip.AddrPort
}

// Invite makes an invite of this node and the code for it. Errors: ErrNotSteward.
func (s *Seat) Invite(o InviteOptions) (*trust.Code, error) {
	if o.Uses < 1 || o.Uses > trust.MaxUses {
		return nil, fmt.Errorf("an invite admits 1 to %d peers, not %d", trust.MaxUses, o.Uses)
	}
	if o.Lifetime <= 0 || o.Lifetime > trust.MaxInvite {
		return nil, fmt.Errorf("an invite holds up to %s, not %s", trust.MaxInvite, o.Lifetime)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.charter.IsSteward(s.identity.ID()) {
		return nil, ErrNotSteward
	}
	code, err := trust.NewCode(s.charter.Root, s.identity.ID(), o.Seeds)
	if err != nil {
		return nil, err
	}
	now := s.now()
	invite := trust.NewInvite(trust.Invite{Key: code.Invite().ID(), Uses: o.Uses, Expires: now.Add(o.Lifetime), Roles: trust.Executor},
		s.charter.Root, s.identity)
	next := ledger{Entries: append(s.current(now), entry{Invite: invite.Marshal()})}
	if err := write(s.dir, ledgerFile, next); err != nil {
		return nil, fmt.Errorf("store invite: %w", err)
	}
	s.ledger = next
	return code, nil
}

// current are the entries that have not expired long ago. s.mu must be held.
func (s *Seat) current(now time.Time) []entry {
	var out []entry
	for _, e := range s.ledger.Entries {
		if i, err := trust.ParseInvite(e.Invite); err == nil && now.Before(i.Expires.Add(trust.Skew)) {
			out = append(out, e)
		}
	}
	return out
}

// Application is what a peer asks for that wants to be admitted.
type Application struct {
	Peer   peer.ID // proven by the connection
	Invite peer.ID // the invite's key
	Proof  []byte  // trust.JoinProof
	Name   string
	Site   string
}

// find is the entry of an invite that may admit a peer. s.mu must be held.
func (s *Seat) find(a Application) (int, *trust.Invite, error) {
	for i, e := range s.ledger.Entries {
		invite, err := trust.ParseInvite(e.Invite)
		if err != nil || invite.Key != a.Invite {
			continue
		}
		if err := trust.CheckJoin(invite.Key, a.Peer, s.identity.ID(), a.Proof); err != nil {
			return 0, nil, err
		}
		if _, gone := s.charter.Revocation(a.Peer); gone {
			return 0, nil, fmt.Errorf("peer %s: %w", a.Peer.Short(), trust.ErrRevoked)
		}
		used := len(e.Peers)
		if slices.Contains(e.Peers, a.Peer) {
			used-- // it asks again: what it got was lost on the way
		}
		return i, invite, s.charter.CheckInvite(invite, used, s.now())
	}
	return 0, nil, fmt.Errorf("invite: %w", trust.ErrStranger)
}

// CheckApplication says whether a peer would be admitted now. Errors: trust.ErrStranger (no invite of
// this node), trust.ErrForged, trust.ErrExpired, trust.ErrUsed, trust.ErrRevoked.
func (s *Seat) CheckApplication(a Application) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _, err := s.find(a)
	return err
}

// Admission is what an admitted peer needs to take its seat.
type Admission struct {
	Charter     *trust.Charter
	Certificate *trust.Certificate
	Secret      trust.Secret
}

// Admit counts a use of the invite and makes the peer a member. Errors as CheckApplication.
func (s *Seat) Admit(a Application) (*Admission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, invite, err := s.find(a)
	if err != nil {
		return nil, err
	}
	if len(s.secrets) == 0 || s.secrets[0].Epoch != s.charter.Epoch {
		return nil, errors.New("the mesh's secret is not known here yet; try again in a moment")
	}
	if !slices.Contains(s.ledger.Entries[i].Peers, a.Peer) {
		next := ledger{Entries: slices.Clone(s.ledger.Entries)}
		next.Entries[i].Peers = append(slices.Clone(next.Entries[i].Peers), a.Peer)
		if err := write(s.dir, ledgerFile, next); err != nil {
			return nil, fmt.Errorf("store admission: %w", err)
		}
		s.ledger = next
	}
	cert := s.issue(trust.Certificate{Peer: a.Peer, Name: a.Name, Site: a.Site, Roles: invite.Roles}, s.charter.Root)
	s.members[a.Peer] = cert
	s.writeMembers()
	return &Admission{s.charter, cert, s.secrets[0].Secret}, nil
}

// Renew makes a new certificate for a member whose certificate still holds. Name and site may change,
// roles do not. Errors: ErrNotSteward, ErrUnknown, trust.ErrExpired.
func (s *Seat) Renew(id peer.ID, name, site string) (*trust.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.charter.IsSteward(s.identity.ID()) {
		return nil, ErrNotSteward
	}
	old := s.members[id]
	if id == s.identity.ID() {
		old = s.certificate
	} else if old == nil {
		return nil, fmt.Errorf("renew %s: %w", id.Short(), ErrUnknown)
	} else if err := s.holds(old); err != nil {
		return nil, err
	}
	return s.issue(trust.Certificate{Peer: id, Name: name, Site: site, Roles: old.Roles}, s.charter.Root), nil
}

// RenewOwn renews this node's certificate by itself, which a steward may. Errors: ErrNotSteward.
func (s *Seat) RenewOwn() error {
	wish := s.wish()
	cert, err := s.Renew(wish.Peer, wish.Name, wish.Site)
	if err != nil {
		return err
	}
	return s.Renewed(cert)
}

// Amend signs the next charter with the root key in rootFile, or with an empty one in the Seat's
// directory, gives it a new secret and adopts it. The key is forgotten at once.
func (s *Seat) Amend(rootFile string, a trust.Amendment) error {
	if rootFile == "" {
		rootFile = s.RootFile()
	}
	root, err := trust.LoadRoot(rootFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; the root key is on the node that founded the mesh, or where init --root-key put it: name it with --root-key FILE", err)
	}
	if err != nil {
		return err
	}
	if _, err := rand.Read(a.Secret[:]); err != nil {
		return err
	}
	a.Index = s.Index()
	next, err := s.Charter().Amend(root, a, s.now())
	if err != nil {
		return err
	}
	return s.Adopt(next, &a.Secret)
}
