package hello_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/trust"
)

// clock is a time that may be wrong.
type clock struct {
	mu   sync.Mutex
	skew time.Duration // guarded by mu
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.skew)
}

func (c *clock) set(skew time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skew = skew
}

// node is a seat, a door and a transport on loopback.
type node struct {
	*transport.Transport
	seat     *member.Seat
	identity *peer.Identity
	clock    *clock
	joined   chan *trust.Certificate
}

func (n *node) id() peer.ID { return n.identity.ID() }

// open starts a node that runs until the test ends.
func open(t testing.TB, name string) *node {
	t.Helper()
	identity, err := peer.Generate()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{identity: identity, clock: &clock{}, joined: make(chan *trust.Certificate, 100)}
	n.seat, err = member.Open(filepath.Join(t.TempDir(), "mesh"), identity, member.Options{Name: name, Site: "berlin", Now: n.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	door := hello.NewDoor(n.seat, nil, func(c *trust.Certificate, at []netip.AddrPort) {
		n.Learn(c.Peer, at)
		n.joined <- c
	})
	n.Transport, err = transport.Open(transport.Options{Identity: identity, Gate: door, Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	n.seat.Watch(func(c member.Change) {
		for _, id := range c.Out {
			n.Drop(id)
		}
	})
	hello.Register(n.ControlServer(), n.seat, transport.Caller)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := n.Serve(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		n.Close()
		serving.Wait()
	})
	return n
}

// invite is a code of n.
func (n *node) invite(t testing.TB, uses int) *trust.Code {
	t.Helper()
	code, err := n.seat.Invite(member.InviteOptions{Uses: uses, Lifetime: time.Hour, Seeds: n.Addresses()})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// join asks for admission and, when admitted, moves.
func (n *node) join(t testing.TB, code *trust.Code) error {
	t.Helper()
	own := n.seat.Certificate()
	j, err := hello.Join(t.Context(), n, code, hello.Applicant{ID: n.id(), Name: own.Name, Site: own.Site, Addresses: n.Addresses()})
	if err != nil {
		return err
	}
	for _, c := range j.Contacts {
		n.Learn(c.Peer, c.Addresses)
	}
	return n.seat.Move(j.Charter, j.Certificate, j.Secret)
}

// mesh is a mesh of nodes with these names, the first of which is the steward; all know each other.
func mesh(t testing.TB, names ...string) []*node {
	t.Helper()
	var nodes []*node
	for i, name := range names {
		n := open(t, name)
		nodes = append(nodes, n)
		if i == 0 {
			continue
		}
		if err := n.join(t, nodes[0].invite(t, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.Learn(b.id(), b.Addresses())
			}
		}
	}
	return nodes
}

// sync makes a call from a to b, which both connects them and brings their charters together.
func (n *node) sync(t testing.TB, to *node) error {
	t.Helper()
	conn, err := n.Control(t.Context(), to.id())
	if err != nil {
		t.Fatal(err)
	}
	return hello.Sync(t.Context(), conn, n.seat)
}

func TestJoin(t *testing.T) {
	ana, bob := open(t, "ana"), open(t, "bob")
	if err := bob.sync(t, ana); err == nil {
		t.Fatal("a stranger's call was answered")
	}
	code, err := trust.ParseCode(ana.invite(t, 1).String())
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.join(t, code); err != nil {
		t.Fatal(err)
	}
	if cert := <-ana.joined; cert.Name != "bob" || cert.Site != "berlin" || cert.Peer != bob.id() {
		t.Errorf("ana hears that %+v joined", cert)
	}
	if err := bob.sync(t, ana); err != nil {
		t.Errorf("a member's call: %v", err)
	}
	if err := ana.sync(t, bob); err != nil {
		t.Errorf("a call to the new member, at the address it told: %v", err)
	}
	if bob.seat.Charter().Root != ana.seat.Charter().Root || bob.seat.Admits(ana.id()) != nil {
		t.Error("bob does not know ana")
	}
	if got, complete := bob.seat.Secrets(); !complete || len(got) != 1 {
		t.Error("bob lacks the secret")
	}
}

// TestLateComer shows that a member is let in by one that has never heard of it, nor of its steward.
func TestLateComer(t *testing.T) {
	nodes := mesh(t, "ana", "bob", "cyd")
	ana, bob, cyd := nodes[0], nodes[1], nodes[2]
	if err := ana.seat.Amend("", trust.Amendment{Appoint: []peer.ID{cyd.id()}}); err != nil {
		t.Fatal(err)
	}
	if err := cyd.sync(t, ana); err != nil || !cyd.seat.IsSteward() {
		t.Fatalf("cyd is no steward: %v", err)
	}
	dan := open(t, "dan")
	if err := dan.join(t, cyd.invite(t, 1)); err != nil {
		t.Fatal(err)
	}
	dan.Learn(bob.id(), bob.Addresses())
	if bob.seat.Charter().Epoch != 1 {
		t.Fatal("bob knows the new charter already")
	}
	if err := dan.sync(t, bob); err != nil {
		t.Errorf("dan to bob: %v", err)
	}
	if _, complete := bob.seat.Secrets(); bob.seat.Charter().Epoch != 2 || !complete {
		t.Errorf("bob goes by epoch %d", bob.seat.Charter().Epoch)
	}
	old := open(t, "eve") // and the other way round: who dials has the older charter
	if err := old.join(t, ana.invite(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := ana.seat.Amend("", trust.Amendment{}); err != nil {
		t.Fatal(err)
	}
	if err := old.sync(t, ana); err != nil || old.seat.Charter().Epoch != 3 {
		t.Errorf("eve goes by epoch %d: %v", old.seat.Charter().Epoch, err)
	}
}

// TestRefusedCodes are codes that admit nobody.
func TestRefusedCodes(t *testing.T) {
	ana, other := open(t, "ana"), open(t, "other")
	used, expired, fresh := ana.invite(t, 1), ana.invite(t, 1), ana.invite(t, 1)
	first := open(t, "first")
	if err := first.join(t, used); err != nil {
		t.Fatal(err)
	}
	bob := open(t, "bob")
	wrongSteward, wrongMesh, wrongKey := *fresh, *fresh, *fresh
	wrongSteward.Seeds = other.Addresses()
	wrongMesh.Root = trust.HashOf(other.seat.Charter().Root)
	wrongKey.Key[0] ^= 1
	nobody := *fresh
	nobody.Seeds = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	for name, test := range map[string]struct {
		code *trust.Code
		skew time.Duration // of ana's clock
		want error
	}{
		"used by another":       {used, 0, trust.ErrUsed},
		"expired":               {expired, 2 * time.Hour, trust.ErrExpired},
		"another node answers":  {&wrongSteward, 0, trust.ErrForged},
		"another mesh is shown": {&wrongMesh, 0, trust.ErrForged},
		"no such invite":        {&wrongKey, 0, hello.ErrRefused},
		"nobody answers":        {&nobody, 0, nil},
	} {
		ana.clock.set(test.skew)
		before := bob.seat.Charter().Root
		err := bob.join(t, test.code)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if bob.seat.Charter().Root != before || ana.seat.Admits(bob.id()) == nil {
			t.Errorf("%s: bob is in", name)
		}
	}
	ana.clock.set(0)
	if err := bob.join(t, fresh); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// TestRevokedMember shows that a revoked member loses its connections and gets no new ones, also where
// the charter came by way of another.
func TestRevokedMember(t *testing.T) {
	nodes := mesh(t, "ana", "bob", "eve")
	ana, bob, eve := nodes[0], nodes[1], nodes[2]
	for _, pair := range [][2]*node{{bob, ana}, {eve, ana}, {eve, bob}} {
		if err := pair[0].sync(t, pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := ana.seat.Amend("", trust.Amendment{Revoke: []trust.Revocation{{Peer: eve.id(), Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	if err := eve.sync(t, ana); err == nil {
		t.Error("ana answered eve")
	}
	if err := bob.sync(t, ana); err != nil {
		t.Fatal(err)
	}
	if err := eve.sync(t, bob); err == nil {
		t.Error("bob answered eve")
	}
	if eve.seat.Charter().Epoch != 1 {
		t.Error("eve was told of the charter that turns her out, and with it of others")
	}
	if bob.Connected(eve.id()) || ana.Connected(eve.id()) {
		t.Error("eve is still connected")
	}
}

// TestClocks shows what a wrong clock does: a day off, nothing; more than the certificate's life, out.
func TestClocks(t *testing.T) {
	for name, test := range map[string]struct {
		skew time.Duration
		want bool
	}{
		"a day ahead": {24 * time.Hour, true}, "a day behind": {-24 * time.Hour, true},
		"40 days ahead": {40 * 24 * time.Hour, false}, "5 days behind": {-5 * 24 * time.Hour, false},
	} {
		nodes := mesh(t, "ana", "bob", "cyd")
		nodes[1].clock.set(test.skew)
		if err := nodes[2].sync(t, nodes[1]); (err == nil) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeeper shows that a certificate is renewed in time, and that a charter amended at one node is soon
// everywhere, with its secret.
func TestKeeper(t *testing.T) {
	nodes := mesh(t, "ana", "bob", "cyd")
	for _, n := range nodes {
		n.clock.set(21 * 24 * time.Hour)
	}
	issued := nodes[1].seat.Certificate().Issued
	for _, n := range nodes {
		k := hello.NewKeeper(n.seat, n, n.clock.now)
		runUntilEnd(t, k)
	}
	for _, n := range nodes {
		within(t, fmt.Sprintf("%s renews", n.seat.Certificate().Name), func() bool { return n.seat.Certificate().Issued.After(issued.Add(time.Hour)) })
	}
	if err := nodes[0].seat.Amend("", trust.Amendment{}); err != nil {
		t.Fatal(err)
	}
	want, _ := nodes[0].seat.Secrets()
	for _, n := range nodes[1:] {
		within(t, "the new secret is everywhere", func() bool {
			got, complete := n.seat.Secrets()
			return complete && n.seat.Charter().Epoch == 2 && got[0] == want[0]
		})
	}
}

// runUntilEnd runs a Keeper until the test ends.
func runUntilEnd(t *testing.T, k *hello.Keeper) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { k.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// within fails the test when claim does not come true.
func within(t *testing.T, what string, claim func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !claim(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// TestSecretsStayHome makes sure that errors told to a peer name nobody.
func TestSecretsStayHome(t *testing.T) {
	ana, eve := open(t, "ana"), open(t, "eve")
	eve.Learn(ana.id(), ana.Addresses())
	err := eve.sync(t, ana)
	if err == nil || strings.Contains(err.Error(), "ana") || strings.Contains(err.Error(), "berlin") {
		t.Errorf("a stranger is told %v", err)
	}
}
