package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/replicate"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/node/power"
)

// copied waits until a node's copies stand as they should, at most 30 s.
func (s *started) copied(t *testing.T, done func(replicate.Stat) bool) {
	t.Helper()
	eventually(t, "copies stand as they should", func() bool { return done(s.Node.content.company.Load().copier.Stat()) })
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
		if eve.finds(t, d); eve.missing(t, digest.SHA256.Of(fmt.Appendf(nil, "%d\n", i))) {
			t.Errorf("the third node has result %d without its output", i)
		}
	}
}

// reads is a machine whose facts a test says.
type reads power.Facts

func (reads) Name() string { return "a test" }

func (r reads) Read(_ context.Context, f *power.Facts) error {
	*f = power.Facts(r)
	return nil
}

// TestCopiesAreRefused: each reason for taking no copies of others' results is told.
func TestCopiesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		agree   int
		metered bool
		drains  bool
		bytes   int // in a store of 1 MiB
		free    int64
		want    string
	}{
		{name: "takes", agree: 1, bytes: 700_000, want: "<nil>"},
		{name: "trust", agree: 2, want: "its trust policy is quorum 2"},
		{name: "metered", agree: 1, metered: true, want: "its network is metered"},
		{name: "draining", agree: 1, drains: true, want: "it shuts down"},
		{name: "full", agree: 1, bytes: 900_000, want: "its disk is nearly full"},
		{name: "disk", agree: 1, free: 1 << 60, want: "its disk is nearly full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store, err := cas.Open(t.TempDir(), cas.Options{MaxBytes: 1 << 20, MinFree: max(c.free, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			if c.bytes > 0 {
				data := make([]byte, c.bytes)
				rand.Read(data)
				if err := store.Put(t.Context(), digest.SHA256.Of(data), data); err != nil {
					t.Fatal(err)
				}
			}
			governor, err := power.New(power.Options{Dir: t.TempDir(), Readers: []power.Reader{reads{Metered: c.metered}}})
			if err != nil {
				t.Fatal(err)
			}
			n := &Node{store: store, lending: &lending{governor: governor}}
			n.draining.Store(c.drains)
			if got := fmt.Sprint((&content{node: n, policy: receipt.Policy{Agree: c.agree}}).refuseCopies()); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestWhoIsAskedForCopies: members at one's own site are, with what they say of their power and network, unless they are
// leaving; those of other sites only where nobody stands near.
func TestWhoIsAskedForCopies(t *testing.T) {
	ana := start(t, configured(t, t.TempDir(), "node.name=ana", "mesh.site=berlin"))
	ben, cai := start(t, configured(t, t.TempDir(), "node.name=ben", "mesh.site=berlin")), start(t, configured(t, t.TempDir(), "node.name=cai", "mesh.site=paris"))
	for _, n := range []*started{ana, ben, cai} {
		defer n.stop()
	}
	ben.joins(t, ana)
	cai.joins(t, ana)
	cai.sees(t, ben)
	asked := func(by *started, says facts.Facts, want ...replicate.Member) {
		t.Helper()
		byID := func(a, b replicate.Member) int { return slices.Compare(a.ID[:], b.ID[:]) }
		slices.SortFunc(want, byID)
		eventually(t, fmt.Sprintf("%s asks %v", by.config.Node.Name, want), func() bool {
			ben.mesh.presence.Board.Set(says) // which ben's own machine contradicts every second
			got := by.Node.content.copyMembers()
			slices.SortFunc(got, byID)
			return slices.Equal(got, want)
		})
	}
	b := ben.identity.ID()
	asked(ana, facts.Facts{Version: "test", State: facts.CacheOnly}, replicate.Member{ID: b})
	asked(ana, facts.Facts{Version: "test", State: facts.CacheOnly, Battery: true}, replicate.Member{ID: b, Battery: true})
	asked(ana, facts.Facts{Version: "test", State: facts.CacheOnly, Network: facts.Metered}, replicate.Member{ID: b, Metered: true})
	asked(ana, facts.Facts{Version: "test", State: facts.Draining})
	asked(cai, facts.Facts{Version: "test", State: facts.CacheOnly, Battery: true}, replicate.Member{ID: ana.identity.ID()}, replicate.Member{ID: b, Battery: true})
}

// TestCopiesGoToMainsFirst: of two members that would keep a result, the one on mains power is asked; the one on battery only
// when it is gone. What members say of their power is the test's; asking, fetching and checking are the nodes'.
func TestCopiesGoToMainsFirst(t *testing.T) {
	ana, ben, cleo := executing(t, t.TempDir(), "node.name=ana"), executing(t, t.TempDir(), "node.name=ben"), executing(t, t.TempDir(), "node.name=cleo")
	for _, n := range []*started{ana, ben, cleo} {
		defer n.stop()
	}
	ben.joins(t, ana)
	cleo.joins(t, ana)
	eventually(t, "both may be asked", func() bool { return len(ana.Node.content.copyMembers()) == 2 })
	x := ana.Node.content.company.Load()
	var battery atomic.Pointer[started]
	o := replicate.Options{Others: 1, Dialer: ana.mesh.transport, Locator: x.results(), Pinner: resultPins{ana.Node.content}, PinBytes: 1 << 20,
		After: time.Millisecond, Members: func() []replicate.Member {
			members := ana.Node.content.copyMembers()
			for i := range members {
				members[i].Battery = members[i].ID == battery.Load().identity.ID()
			}
			return members
		}}
	copier := replicate.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { copier.Run(ctx) })
	defer running.Wait()
	defer cancel()
	copied := int64(0)
	copies := func(script string) cid.Key {
		t.Helper()
		action := ana.action(t, script)
		ana.executed(t, action)
		key := x.keyer.Result(action, ana.hostRoot())
		copier.Note(key)
		copied++
		eventually(t, "a member keeps "+script, func() bool { return copier.Stat().Held == copied })
		return key
	}
	holds := func(s *started, key cid.Key) bool {
		t.Helper()
		answers, err := s.Node.content.company.Load().copies.Answers(t.Context(), []cid.Key{key})
		if err != nil {
			t.Fatal(err)
		}
		return answers[0].Complete
	}
	mains := cleo
	for i := range 6 { // who is asked first among equals is another one for each key
		spared := []*started{ben, cleo}[i%2]
		mains = []*started{cleo, ben}[i%2]
		battery.Store(spared)
		if key := copies(fmt.Sprintf("echo %d > out", i)); !holds(mains, key) || holds(spared, key) {
			t.Errorf("round %d: %s on mains power holds the copy: %v, %s on battery: %v", i, mains.config.Node.Name, holds(mains, key),
				spared.config.Node.Name, holds(spared, key))
		}
	}
	mains.stop()
	if key := copies("echo alone > out"); !holds(battery.Load(), key) {
		t.Error("a member on battery is not asked when nobody else is left")
	}
}

// TestCaps: no more comes and goes in a second than the configuration says, whatever it is for: after a burst of 8 MiB, which
// every bound gives, 6 MiB at 8 MiB a second take three quarters of one at least.
func TestCaps(t *testing.T) {
	type fetchers func(x *company) []*fetch.Fetcher
	both := func(x *company) []*fetch.Fetcher { return []*fetch.Fetcher{x.fetcher, x.copying} }
	copies := func(x *company) []*fetch.Fetcher { return []*fetch.Fetcher{x.copying, x.copying} }
	for setting, c := range map[string]struct {
		at string
		by fetchers
	}{"mesh.download": {"receiver", both}, "mesh.upload": {"sender", both}, "store.replica_rate": {"receiver", copies}} {
		t.Run(setting, func(t *testing.T) {
			bound := func(at string) []string {
				if at != c.at {
					return []string{"store.replica_rate=0"}
				}
				return []string{"store.replica_rate=0", setting + "=8MiB"}
			}
			ana, ben := start(t, configured(t, t.TempDir(), bound("sender")...)), start(t, configured(t, t.TempDir(), bound("receiver")...))
			defer ben.stop()
			defer ana.stop()
			ben.joins(t, ana)
			var ds []digest.Digest
			for i := range 2 {
				data := bytes.Repeat([]byte{byte(i)}, 7<<20)
				ds = append(ds, digest.SHA256.Of(data))
				if err := ana.Node.store.Put(t.Context(), ds[i], data); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			for i, f := range c.by(ben.Node.content.company.Load()) {
				if err := f.FetchOne(t.Context(), ds[i], []peer.ID{ana.identity.ID()}); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took < 700*time.Millisecond {
				t.Errorf("14 MiB came in %v", took)
			}
		})
	}
}
