package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/roster"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// until waits until a node's roster fits, at most 30 s.
func (s *started) until(t *testing.T, claim string, fits func(roster.Snapshot) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for version := uint64(0); ; {
		now, err := s.mesh.presence.Roster.Next(ctx, version)
		if err != nil {
			t.Fatalf("%s: not so: %s; roster %+v", s.config.Node.Name, claim, s.mesh.presence.Roster.Now().Members)
		}
		if fits(now) {
			return
		}
		version = now.Version
	}
}

// peer asks a node's control API for another one, and waits for its facts, at most 30 s.
func (s *started) peer(t *testing.T, other *started) *controlv1.Peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for version := uint64(0); ; {
		answer, err := peersAnswers{node: s.Node}.Peers(ctx, &controlv1.PeersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range answer.Peers {
			if p.PeerId == other.identity.ID().String() && p.Facts != nil {
				return p
			}
		}
		if _, version, err = s.mesh.presence.Book.Next(ctx, version); err != nil {
			t.Fatalf("%s has not heard from %s: %v", s.config.Node.Name, other.config.Node.Name, answer)
		}
	}
}

// TestPeers is the company of real nodes as a person sees it: three of a mesh, one of which is restarted, one
// turned out, and one leaves.
func TestPeers(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ana, ben := start(t, configured(t, t.TempDir(), "node.name=ana")), start(t, configured(t, dir, "node.name=ben", "mesh.site=paris"))
	if s := ana.Snapshot().Mesh; s.Name != "ana" || s.Alive+s.Suspect+s.Dead != 0 {
		t.Errorf("a mesh of one: %v", s)
	}
	ben.joins(t, ana)
	cai := start(t, configured(t, t.TempDir(), "node.name=cai"))
	cai.joins(t, ana)
	cai.sees(t, ben)
	p := cai.peer(t, ben)
	if p.Name != "ben" || p.State != "alive" || p.Site != "paris" || !p.Connected || p.Address != ben.mesh.transport.Listening().String() ||
		p.Facts.State != "cache only" || p.Facts.Version != "test" || len(p.Facts.Isa) == 0 || p.Seen == nil {
		t.Errorf("ben, as cai sees him: %v", p)
	}
	if s := cai.Snapshot().Mesh; s.Name != "ana" || s.Alive != 2 || len(s.Problems) != 0 {
		t.Errorf("status: %v", s)
	}
	examined(t, ana, "in mesh ana until", "2 alive, 0 suspect, 0 gone", "2 of 2 connect to this node", "no two are the same")

	old, _ := ana.mesh.presence.Roster.Now().Get(ben.identity.ID())
	ben.stop()
	ana.until(t, "ben said goodbye", func(s roster.Snapshot) bool { m, _ := s.Get(old.ID); return m.State == roster.Left })
	ben = start(t, configured(t, dir, "node.name=ben", "mesh.site=paris"))
	ana.until(t, "ben is back", func(s roster.Snapshot) bool {
		m, _ := s.Get(old.ID)
		return m.State == roster.Alive && m.Boot != old.Boot
	})
	ben.sees(t, cai)

	if _, err := (meshAnswers{node: ana.Node}).Revoke(t.Context(), &controlv1.RevokeRequest{Peer: "cai"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*started{ana, ben} {
		n.until(t, "cai is turned out", func(s roster.Snapshot) bool { _, known := s.Get(cai.identity.ID()); return !known })
		// One that was being opened meanwhile ends a moment later.
		eventually(t, n.config.Node.Name+" has no connection with who is turned out", func() bool {
			return !n.mesh.transport.Connected(cai.identity.ID())
		})
	}
	if _, err := (meshAnswers{node: ben.Node}).Leave(t.Context(), &controlv1.LeaveRequest{}); err != nil {
		t.Fatal(err)
	}
	ana.until(t, "ben left", func(s roster.Snapshot) bool { m, _ := s.Get(ben.identity.ID()); return m.State == roster.Left })
	if left := ben.Snapshot().Mesh; left.Name != "ben" || left.Alive+left.Suspect+left.Dead != 0 {
		t.Errorf("who left is in %v", left)
	}
	examined(t, ben, "no other members are known", "nobody to ask")
}

// examined asks the doctor: nothing of the mesh is wrong, and these things are said.
func examined(t *testing.T, n *started, says ...string) {
	t.Helper()
	var all strings.Builder
	for _, c := range n.doctor(t.Context()) {
		all.WriteString(c.Name + ": " + c.Finding + "\n")
		if (strings.Contains(c.Name, "mesh") || strings.Contains(c.Name, "members")) && c.Verdict != controlv1.Check_VERDICT_OK {
			t.Errorf("%v", c)
		}
	}
	for _, want := range says {
		if !strings.Contains(all.String(), want) {
			t.Errorf("the doctor does not say %q:\n%s", want, all.String())
		}
	}
}
