package roster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

var (
	self = peer.ID{1}
	ana  = peer.ID{2}
	ben  = peer.ID{3}
	zero = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
)

// member is a member as gossip tells of it.
func member(id peer.ID, boot string) Member {
	return Member{ID: id, Name: "m" + id.Short(), Gossip: netip.MustParseAddrPort("10.0.0.7:7946"), Boot: boot}
}

// play runs steps, "second verb", on a table that knows ana, and tells her state.
func play(t *testing.T, steps string) State {
	t.Helper()
	table := newTable(self)
	table.claimAlive(member(ana, "a"), zero.Add(-time.Minute))
	for _, step := range strings.Split(steps, ", ") {
		var second float64
		var verb string
		if _, err := fmt.Sscanf(step, "%g %s", &second, &verb); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		now := zero.Add(time.Duration(second * float64(time.Second)))
		switch verb {
		case "dead":
			table.claimGone(ana, "a", false, now)
		case "left":
			table.claimGone(ana, "a", true, now)
		case "dead-b":
			table.claimGone(ana, "b", false, now)
		case "alive":
			table.claimAlive(member(ana, "a"), now)
		case "alive-b":
			table.claimAlive(member(ana, "b"), now)
		case "seen":
			table.seen(ana, now)
		case "failed":
			table.failed(ana, "connection refused", now)
		case "tick":
			table.tick(now)
		default:
			t.Fatalf("no verb %s", verb)
		}
	}
	return table.members()[0].State
}

func TestJudge(t *testing.T) {
	for steps, want := range map[string]State{
		"0 tick":                              Alive,
		"0 failed":                            Suspect, // alive in gossip, not for us
		"0 failed, 1 seen":                    Alive,
		"0 failed, 1 alive":                   Suspect, // gossip repeating itself proves nothing
		"0 failed, 1 alive-b":                 Alive,   // another start is another try
		"0 dead":                              Suspect, // a claim is a hint
		"0 dead, 1 failed":                    Dead,
		"0 dead, 1 seen":                      Alive, // own evidence beats gossip
		"0 dead, 1 seen, 2 failed":            Dead,
		"0 failed, 1 dead":                    Suspect, // failed before the claim: look again
		"0 dead, 2 tick":                      Suspect,
		"0 dead, 3 tick":                      Dead, // nobody looked in time
		"0 dead, 1 seen, 10 tick":             Alive,
		"0 dead, 1 seen, 11 tick":             Suspect, // evidence grows old
		"0 dead, 1 seen, 14 tick":             Dead,
		"0 dead, 3 tick, 9 seen":              Alive,
		"0 dead, 3 tick, 9 alive":             Alive,
		"0 left":                              Left,
		"0 alive-b, 1 left":                   Alive, // the other start goes on
		"0 left, 1 seen":                      Left,  // it said so itself, and answers to the last
		"0 alive-b, 1 dead":                   Alive, // the earlier start died
		"0 alive-b, 1 dead-b":                 Alive, // the other still lives
		"0 alive-b, 1 dead, 2 dead-b, 5 tick": Dead,
		"0 dead-b, 9 tick":                    Alive, // of a start nobody knows
		"0 seen, 1 dead":                      Suspect,
	} {
		if got := play(t, steps); got != want {
			t.Errorf("%s: %v, want %v", steps, got, want)
		}
	}
}

// TestDue holds due to judge: between two due times no state changes by itself.
func TestDue(t *testing.T) {
	for _, steps := range []string{"dead", "dead seen", "dead seen failed", "left", "failed"} {
		table := newTable(self)
		table.claimAlive(member(ana, "a"), zero)
		for i, verb := range strings.Fields(steps) {
			now := zero.Add(time.Duration(i+1) * 700 * time.Millisecond)
			switch verb {
			case "dead", "left":
				table.claimGone(ana, "a", verb == "left", now)
			case "seen":
				table.seen(ana, now)
			case "failed":
				table.failed(ana, "x", now)
			}
		}
		next := table.tick(zero.Add(3 * time.Second))
		for now := zero.Add(3 * time.Second); now.Before(zero.Add(time.Minute)); now = now.Add(100 * time.Millisecond) {
			before := table.members()[0].State
			later := table.tick(now)
			if state := table.members()[0].State; state != before && (next.IsZero() || now.Before(next)) {
				t.Errorf("%s: %v became %v at %v, announced for %v", steps, before, state, now.Sub(zero), next)
			}
			next = later
		}
	}
}

func TestSelfAndForgotten(t *testing.T) {
	table := newTable(self)
	table.claimAlive(member(self, "a"), zero)
	table.claimAlive(member(peer.ID{}, "a"), zero)
	table.seen(ana, zero)
	table.failed(ana, "x", zero)
	table.claimGone(ana, "a", false, zero)
	if n := len(table.members()); n != 0 || table.version != 0 {
		t.Errorf("%d members, version %d: neither the node itself nor the unknown belongs into the roster", n, table.version)
	}
	table.claimAlive(member(ana, "a"), zero)
	table.forget(ana)
	table.forget(ben)
	before := table.version
	table.forget(ana)
	if len(table.members()) != 0 || before == 0 || table.version != before {
		t.Errorf("version %d after a member came and was forgotten", table.version)
	}
}

// TestBounds floods the table with members and starts.
func TestBounds(t *testing.T) {
	table := newTable(self)
	id := func(i int) peer.ID { return peer.ID{9, byte(i), byte(i >> 8)} }
	for i := range MaxMembers {
		table.claimAlive(member(id(i), "a"), zero)
	}
	table.claimGone(id(5), "a", false, zero.Add(time.Second))
	table.failed(id(5), "x", zero.Add(2*time.Second))
	table.claimAlive(member(ana, "a"), zero.Add(time.Minute))
	if len(table.entries) != MaxMembers || table.entries[id(5)] != nil || table.entries[ana] == nil {
		t.Errorf("%d members; the dead one kept its place: %v", len(table.entries), table.entries[id(5)] != nil)
	}
	for i := range 100 {
		table.claimAlive(member(ana, fmt.Sprint(i)), zero.Add(time.Minute))
	}
	if n := len(table.entries[ana].boots); n > maxBoots {
		t.Errorf("%d starts of one peer are kept", n)
	}
}

func TestRestored(t *testing.T) {
	table := newTable(self)
	table.restore(Member{ID: ana, State: Alive, Seen: zero, Boot: "old"}, zero)
	m := table.members()[0]
	if m.State != Dead || !m.Seen.IsZero() || m.Boot != "" {
		t.Errorf("%+v: a member of an earlier run is somebody to look for", m)
	}
	if got := table.doubtful(); len(got) != 0 {
		t.Errorf("doubtful: %v", got)
	}
	table.seen(ana, zero.Add(time.Second))
	if m := table.members()[0]; m.State != Alive {
		t.Errorf("seen: %+v", m)
	}
}

func TestVersions(t *testing.T) {
	table := newTable(self)
	var versions []uint64
	for i, step := range []func(time.Time){
		func(now time.Time) { table.claimAlive(member(ana, "a"), now) },
		func(now time.Time) { table.claimAlive(member(ana, "a"), now) }, // nothing new
		func(now time.Time) { table.seen(ana, now) },                    // nor this
		func(now time.Time) { table.failed(ana, "x", now) },
		func(now time.Time) { table.seen(ana, now) },
	} {
		step(zero.Add(time.Duration(i) * time.Second))
		versions = append(versions, table.version)
	}
	if !(versions[0] > 0 && versions[1] == versions[0] && versions[2] == versions[0] && versions[3] > versions[2] && versions[4] > versions[3]) {
		t.Errorf("versions %v", versions)
	}
	if !slices.Equal(table.doubtful(), nil) {
		t.Errorf("doubtful: %v", table.doubtful())
	}
}
