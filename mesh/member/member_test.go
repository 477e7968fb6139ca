package member

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
)

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// seated is a Seat in a directory of its own.
type seated struct {
	*Seat
	dir      string
	identity *peer.Identity
	clock    *clock
	changes  []Change
}

// sit opens a seat whose node has this name.
func sit(t *testing.T, name string) *seated {
	t.Helper()
	identity, err := peer.Generate()
	if err != nil {
		t.Fatal(err)
	}
	s := &seated{dir: filepath.Join(t.TempDir(), "mesh"), identity: identity, clock: &clock{time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}}
	s.reopen(t, name)
	return s
}

// reopen opens the seat again, as after a restart.
func (s *seated) reopen(t *testing.T, name string) {
	t.Helper()
	seat, err := Open(s.dir, s.identity, Options{Name: name, Site: "berlin", Now: s.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	s.Seat, s.changes = seat, nil
	seat.Watch(func(c Change) { s.changes = append(s.changes, c) })
}

// knock is the application of a peer with a code.
func knock(code *trust.Code, joiner, steward peer.ID) Application {
	return Application{Peer: joiner, Invite: code.Invite().ID(), Proof: trust.JoinProof(code.Invite(), joiner, steward), Name: "bob", Site: "berlin"}
}

// invited is a code of s for n peers and an hour.
func invited(t *testing.T, s *seated, n int) *trust.Code {
	t.Helper()
	code, err := s.Invite(InviteOptions{Uses: n, Lifetime: time.Hour, Seeds: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// join brings b into the mesh of a.
func join(t *testing.T, a, b *seated) {
	t.Helper()
	admission, err := a.Admit(knock(invited(t, a, 1), b.ID(), a.ID()))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Move(admission.Charter, admission.Certificate, admission.Secret); err != nil {
		t.Fatal(err)
	}
	if err := b.Learn(a.Certificate()); err != nil {
		t.Fatal(err)
	}
}

func TestAdmission(t *testing.T) {
	ana, bob := sit(t, "ana"), sit(t, "bob")
	alone := bob.Charter().Root
	if !ana.IsSteward() || ana.Charter().Name != "ana" || ana.Charter().Check(ana.Certificate(), ana.clock.at) != nil {
		t.Fatal("a first start founds no mesh of one")
	}
	if err := ana.Admits(bob.ID()); !errors.Is(err, ErrUnknown) {
		t.Errorf("before: %v", err)
	}
	join(t, ana, bob)
	if err := errors.Join(ana.Admits(bob.ID()), bob.Admits(ana.ID())); err != nil {
		t.Error(err)
	}
	if bob.Charter().Root != ana.Charter().Root || len(bob.changes) != 1 || !bob.changes[0].Moved {
		t.Errorf("bob did not move: %+v", bob.changes)
	}
	if a, b := ana.Members(), bob.Members(); len(a) != 2 || len(b) != 2 || a[1].Name != "bob" || b[0].Name != "bob" {
		t.Errorf("members: %v and %v", a, b)
	}
	if _, err := bob.Invite(InviteOptions{Uses: 1, Lifetime: time.Hour}); !errors.Is(err, ErrNotSteward) {
		t.Errorf("bob invited: %v", err)
	}
	if _, err := bob.Found("other", ""); !errors.Is(err, ErrNotAlone) {
		t.Errorf("bob founded a mesh while in another: %v", err)
	}
	ana.reopen(t, "ana")
	bob.reopen(t, "bob")
	if err := errors.Join(ana.Admits(bob.ID()), bob.Admits(ana.ID())); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	bob.Watch(func(c Change) { // gossip goes on meanwhile
		if !c.Moved {
			_ = bob.Learn(ana.Certificate())
		}
	})
	if err := bob.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := bob.Admits(ana.ID()); err == nil || !bob.IsSteward() || bob.Charter().Root == alone {
		t.Errorf("bob left: %v, %v", err, bob.Charter().Root)
	}
	if set, _ := filepath.Glob(filepath.Join(bob.dir, "root*.pem")); len(set) != 2 {
		t.Errorf("root keys kept: %v", set)
	}
}

// TestModes makes sure that nobody else can read what a seat keeps.
func TestModes(t *testing.T) {
	ana, bob := sit(t, "ana"), sit(t, "bob")
	join(t, ana, bob)
	files, err := os.ReadDir(ana.dir)
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if info, _ := os.Stat(ana.dir); info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v", info.Mode())
	}
}

// TestUses shows that an invite is good for as many peers as it says, across restarts and all at once.
func TestUses(t *testing.T) {
	ana := sit(t, "ana")
	code := invited(t, ana, 3)
	ids := make([]peer.ID, 8)
	for i := range ids {
		identity, err := peer.Generate()
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = identity.ID()
	}
	for range 2 { // the same peer again, as when the answer was lost
		if _, err := ana.Admit(knock(code, ids[0], ana.ID())); err != nil {
			t.Fatal(err)
		}
		ana.reopen(t, "ana")
	}
	var admitted, used int
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, id := range ids[1:] {
		group.Go(func() {
			_, err := ana.Admit(knock(code, id, ana.ID()))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				admitted++
			case errors.Is(err, trust.ErrUsed):
				used++
			}
		})
	}
	group.Wait()
	if admitted != 2 || used != 5 {
		t.Errorf("%d of 7 admitted, %d refused; 2 uses were left", admitted, used)
	}
	ana.reopen(t, "ana")
	if err := ana.CheckApplication(knock(code, ids[7], ana.ID())); ana.Admits(ids[7]) != nil && !errors.Is(err, trust.ErrUsed) {
		t.Errorf("after a restart: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	ana, other := sit(t, "ana"), sit(t, "other")
	code := invited(t, ana, 1)
	bob := other.ID()
	for name, test := range map[string]struct {
		application Application
		after       time.Duration
		want        error
	}{
		"good":             {knock(code, bob, ana.ID()), 0, nil},
		"expired":          {knock(code, bob, ana.ID()), time.Hour, trust.ErrExpired},
		"another's invite": {knock(invited(t, other, 1), bob, ana.ID()), 0, trust.ErrStranger},
		"passed on":        {func() Application { a := knock(code, ana.ID(), ana.ID()); a.Peer = bob; return a }(), 0, trust.ErrForged},
		"no proof":         {Application{Peer: bob, Invite: code.Invite().ID()}, 0, trust.ErrForged},
	} {
		at := ana.clock.at
		ana.clock.at = at.Add(test.after)
		if err := ana.CheckApplication(test.application); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		ana.clock.at = at
	}
	for _, o := range []InviteOptions{{Uses: 0, Lifetime: time.Hour}, {Uses: trust.MaxUses + 1, Lifetime: time.Hour}, {Uses: 1}, {Uses: 1, Lifetime: trust.MaxInvite + 1}} {
		if _, err := ana.Invite(o); err == nil {
			t.Errorf("invite %+v was made", o)
		}
	}
}

// TestRevoke turns a member out on the node that does it and on another that hears of it.
func TestRevoke(t *testing.T) {
	ana, bob, eve := sit(t, "ana"), sit(t, "bob"), sit(t, "eve")
	join(t, ana, bob)
	join(t, ana, eve)
	if err := bob.Learn(eve.Certificate()); err != nil {
		t.Fatal(err)
	}
	old, _ := bob.Secrets()
	if err := bob.Amend("", trust.Amendment{}); err == nil {
		t.Error("a member without the root key amended the charter")
	}
	if err := ana.Amend("", trust.Amendment{Revoke: []trust.Revocation{{Peer: eve.ID(), Since: ana.clock.at}}}); err != nil {
		t.Fatal(err)
	}
	if c := ana.changes; len(c) != 1 || len(c[0].Out) != 1 || c[0].Out[0] != eve.ID() || c[0].Epoch != 2 {
		t.Errorf("changes at ana: %+v", c)
	}
	if err := bob.Adopt(ana.Charter(), nil); err != nil {
		t.Fatal(err)
	}
	if _, complete := bob.Secrets(); complete {
		t.Error("bob cannot have the new secret yet")
	}
	for _, s := range []*seated{ana, bob} {
		if err := s.Admits(eve.ID()); !errors.Is(err, ErrUnknown) {
			t.Errorf("eve is admitted by %s: %v", s.options.Name, err)
		}
		if err := s.Learn(eve.Certificate()); !errors.Is(err, trust.ErrRevoked) {
			t.Errorf("%s learned eve again: %v", s.options.Name, err)
		}
	}
	secrets, _ := ana.Secrets()
	if err := bob.Adopt(ana.Charter(), &old[0]); !errors.Is(err, trust.ErrForged) {
		t.Errorf("an old secret was taken for the new one: %v", err)
	}
	if err := bob.Adopt(ana.Charter(), &secrets[0]); err != nil {
		t.Fatal(err)
	}
	got, complete := bob.Secrets()
	if !complete || len(got) != 2 || got[0] != secrets[0] || got[1] != old[0] {
		t.Errorf("bob's secrets: complete %v, %d of them", complete, len(got))
	}
	bob.reopen(t, "bob")
	if bob.Charter().Epoch != 2 || bob.Admits(eve.ID()) == nil {
		t.Error("after a restart the revocation is forgotten")
	}
	if err := ana.CheckApplication(knock(invited(t, ana, 1), eve.ID(), ana.ID())); !errors.Is(err, trust.ErrRevoked) {
		t.Errorf("eve was invited again: %v", err)
	}
}

func TestRenew(t *testing.T) {
	ana, bob := sit(t, "ana"), sit(t, "bob")
	join(t, ana, bob)
	for _, s := range []*seated{ana, bob} {
		s.clock.at = s.clock.at.Add(25 * 24 * time.Hour)
	}
	if !ana.clock.at.After(bob.Certificate().RenewAt()) {
		t.Error("it is time to renew after 25 days")
	}
	cert, err := ana.Renew(bob.ID(), "bobby", "paris")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bob.Renewed(cert), ana.Learn(cert), ana.RenewOwn()); err != nil {
		t.Fatal(err)
	}
	if err := bob.Renewed(ana.Certificate()); !errors.Is(err, trust.ErrForged) {
		t.Errorf("bob took ana's certificate: %v", err)
	}
	for _, s := range []*seated{ana, bob} {
		s.clock.at = s.clock.at.Add(20 * 24 * time.Hour)
	}
	if err := errors.Join(ana.Admits(bob.ID()), bob.Learn(ana.Certificate()), bob.Admits(ana.ID())); err != nil {
		t.Errorf("after 45 days: %v", err)
	}
	if _, err := bob.Renew(ana.ID(), "", ""); !errors.Is(err, ErrNotSteward) {
		t.Errorf("bob renewed: %v", err)
	}
	ana.clock.at = ana.clock.at.Add(20 * 24 * time.Hour)
	if err := ana.Admits(bob.ID()); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("after 65 days: %v", err)
	}
	if _, err := ana.Renew(bob.ID(), "", ""); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("an expired certificate was renewed: %v", err)
	}
	if len(ana.Members()) != 1 {
		t.Error("an expired member is shown")
	}
}

// TestRootElsewhere founds a mesh whose root key is kept apart.
func TestRootElsewhere(t *testing.T) {
	ana := sit(t, "ana")
	file := filepath.Join(t.TempDir(), "stick.pem")
	charter, err := ana.Found("office", file)
	if err != nil || charter.Name != "office" || ana.Charter().Root != charter.Root {
		t.Fatal(charter, err)
	}
	if err := ana.Amend("", trust.Amendment{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the root key: %v", err)
	}
	if kept, _ := filepath.Glob(filepath.Join(ana.dir, "root-*.pem")); len(kept) != 1 {
		t.Errorf("the root key of the mesh of one is not kept: %v", kept)
	}
	if err := ana.Amend(file, trust.Amendment{Appoint: []peer.ID{{1}}}); err != nil || !ana.Charter().IsSteward(peer.ID{1}) {
		t.Error(err)
	}
	if _, err := ana.Found("again", file); err == nil {
		t.Error("a root key was overwritten")
	}
}

func TestDamaged(t *testing.T) {
	ana, bob := sit(t, "ana"), sit(t, "bob")
	if _, err := Open(ana.dir, bob.identity, Options{Name: "bob"}); !errors.Is(err, trust.ErrForged) {
		t.Errorf("another node's seat: %v", err)
	}
	if err := os.WriteFile(filepath.Join(ana.dir, seatFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ana.dir, ana.identity, Options{Name: "ana"}); err == nil {
		t.Error("a damaged seat was replaced by a new mesh")
	}
}

// TestIndexOutlivesEpochs: the secret that names content is the same at all members and in every epoch; who is not a member
// cannot read it from a charter.
func TestIndexOutlivesEpochs(t *testing.T) {
	ana, bob := sit(t, "ana"), sit(t, "bob")
	if ana.Index() == bob.Index() || ana.Index() == (trust.Secret{}) {
		t.Fatal("two meshes have the same index, or none")
	}
	join(t, ana, bob)
	index := ana.Index()
	if err := ana.Amend("", trust.Amendment{Revoke: []trust.Revocation{{Peer: peer.ID{9}, Since: ana.clock.at}}}); err != nil {
		t.Fatal(err)
	}
	if err := bob.Adopt(ana.Charter(), nil); err != nil { // the epoch's secret is still on its way
		t.Fatal(err)
	}
	bob.reopen(t, "bob")
	if bob.Index() != index {
		t.Error("the index is lost while the epoch's secret is not known")
	}
	secrets, _ := ana.Secrets()
	if err := bob.Adopt(ana.Charter(), &secrets[0]); err != nil {
		t.Fatal(err)
	}
	eve := sit(t, "eve")
	join(t, ana, eve)
	ana.reopen(t, "ana")
	for _, s := range []*seated{ana, bob, eve} {
		if s.Index() != index {
			t.Errorf("%s names content otherwise", s.options.Name)
		}
		if charter := s.Charter().Marshal(); bytes.Contains(charter, index[:]) || s.Charter().OpenIndex(trust.Secret{}) == index {
			t.Error("a charter tells the index to whoever reads it")
		}
	}
}
