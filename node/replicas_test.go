package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/replicate"
)

// copied waits until a node's copies stand as they should, at most 60 s.
func (s *started) copied(t *testing.T, done func(replicate.Stat) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		now := s.Node.content.company.Load().copier.Stat()
		if done(now) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("copies stay at %+v", now)
		}
	}
}

// holds reports which of the results a node could give at once, and whether all their outputs are there.
func (s *started) holds(t *testing.T, actions []digest.Digest) (held []digest.Digest) {
	t.Helper()
	for _, d := range actions {
		if r, err := s.Node.results.find(t.Context(), d, s.hostRoot()); err == nil && len(r.OutputFiles) == 1 {
			held = append(held, d)
		}
	}
	return held
}

// TestBuilderLeaves: ana builds while nobody is there, and is restarted before anybody joins. Then two members
// come, one of which takes copies; the other, which believes nobody alone, takes none. ana goes the moment ben has them. When
// eve comes back, believing ben, every byte is there that only ana had made.
func TestBuilderLeaves(t *testing.T) {
	dir := t.TempDir()
	settings := []string{"node.name=ana", "store.replicas=2"}
	ana := executing(t, dir, settings...)
	var actions []digest.Digest
	for i := range 12 {
		d := ana.action(t, fmt.Sprintf("echo %d > out", i))
		ana.executed(t, d)
		actions = append(actions, d)
	}
	ana.copied(t, func(s replicate.Stat) bool { return s.Open == len(actions) && s.Pinned > 0 })
	ana.stop()

	ana = executing(t, dir, settings...)
	ana.copied(t, func(s replicate.Stat) bool { return s.Open == len(actions) && s.Pinned > 0 })
	apart := t.TempDir()
	ben, eve := executing(t, t.TempDir(), "node.name=ben"), executing(t, apart, "node.name=eve", "mesh.trust=quorum 2")
	defer ben.stop()
	ben.joins(t, ana)
	eve.joins(t, ana)
	ana.copied(t, func(s replicate.Stat) bool { return s.Held == int64(len(actions)) && s.Open == 0 && s.Pinned == 0 })
	ana.stop()

	if held := ben.holds(t, actions); !slices.Equal(held, actions) {
		t.Errorf("of %d results ben holds %d", len(actions), len(held))
	}
	if held := eve.holds(t, actions); len(held) != 0 {
		t.Errorf("eve, who believes nobody alone, holds %d results", len(held))
	}
	eve.stop()
	eve = executing(t, apart, "node.name=eve")
	defer eve.stop()
	for i, d := range actions {
		eve.knows(t, ben, d)
		if _, err := eve.result(t, d); err != nil || eve.missing(t, digest.SHA256.Of(fmt.Appendf(nil, "%d\n", i))) {
			t.Errorf("result %d at the third node: %v", i, err)
		}
	}
}
