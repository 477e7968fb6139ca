package lookup_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// bridges gives those of a site by number, then its other nodes.
func (w *world) bridges(site string) (bridges, others []int) {
	var members []locate.Member
	for i, n := range w.nodes {
		if !w.gone[i] {
			members = append(members, n.sites.Self())
		}
	}
	ids := locate.Bridges(site, members)
	for i, n := range w.nodes {
		switch {
		case slices.Contains(ids, n.ID):
			bridges = append(bridges, i)
		case n.Site() == site && !w.gone[i]:
			others = append(others, i)
		}
	}
	return bridges, others
}

// told waits until these nodes find exactly those for a key, at most 30 s.
func (w *world) told(t *testing.T, key cid.Key, nodes, found []int) {
	t.Helper()
	for _, to := range nodes {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			ids := w.nodes[to].summary.Peers.Find([]cid.Key{key})[0]
			all := len(ids) == len(found)
			for _, f := range found {
				all = all && slices.Contains(ids, w.nodes[f].ID)
			}
			if all {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("node %d finds %d peers, want %v", to, len(ids), found)
			}
		}
	}
}

// spread waits until a result that one node alone has is known to everybody.
func (w *world) spread(t *testing.T, name string, at int) {
	t.Helper()
	key := keyer.Result(actionOf(name), root)
	bridges, _ := w.bridges(w.nodes[at].Site())
	var near, far []int
	for i, n := range w.nodes {
		if w.gone[i] {
			continue
		}
		if n.Site() != w.nodes[at].Site() {
			far = append(far, i)
		} else if i != at {
			near = append(near, i)
		}
	}
	w.told(t, key, near, []int{at})
	w.told(t, key, far, bridges)
}

// Two offices with a slow line between: a miss sends nothing over it, a hit on the other side asks a bridge there and
// then who has it, and after that everybody on this side is served on this side.
func TestTwoSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 20 * time.Millisecond
		w := newSites(t, []string{"a", "a", "a", "b", "b", "b", "b"}, receipt.Policy{Agree: 1}, nil)
		w.net.SetDelay(delay)
		w.connected(t)
		_, others := w.bridges("b")
		maker := others[0]
		w.nodes[maker].build(t, "far", "far")
		w.spread(t, "far", maker)

		before := w.net.Crossed()
		for i := range 500 {
			w.want(t, 0, fmt.Sprint("nobody made this ", i))
		}
		if n := w.net.Crossed() - before; n != 0 {
			t.Errorf("500 misses sent %d messages to the other site", n)
		}
		if s := w.nodes[0].lookup.Stat(); s.Silent != 500 {
			t.Errorf("%d of 500 misses were silent", s.Silent)
		}

		began := time.Now()
		w.want(t, 0, "far", maker)
		if took := time.Since(began); took < 4*delay {
			t.Errorf("a hit on the other side took %v, less than asking a bridge and a member there", took)
		}

		key := keyer.Result(actionOf("far"), root)
		here, _ := w.bridges("a")
		there, _ := w.bridges("b")
		w.told(t, key, []int{1, 2}, append([]int{0}, there...))
		w.told(t, key, []int{maker}, here)
		for _, n := range w.nodes[3:] {
			n.Freeze()
		}
		before, began = w.net.Crossed(), time.Now()
		w.want(t, 1, "far", maker)
		if n := w.net.Crossed() - before; n != 0 && time.Since(began) < lookup.HedgeAfter {
			t.Errorf("a hit on this side sent %d messages to the other one", n)
		}
		for _, n := range w.nodes[3:] {
			n.Thaw()
		}
	})
}

// What both sites have comes from this one: nobody at the other is asked, for receipt or blobs.
func TestNearFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSites(t, []string{"a", "a", "b"}, receipt.Policy{Agree: 1}, nil)
		w.connected(t)
		w.nodes[1].build(t, "one", "x")
		w.nodes[2].build(t, "one", "x")
		w.told(t, keyer.Result(actionOf("one"), root), []int{0}, []int{1, 2})
		far := w.nodes[2].Calls()
		w.want(t, 0, "one", 1)
		if calls := w.nodes[2].Calls() - far; calls != 0 {
			t.Errorf("the other site was called %d times", calls)
		}
	})
}

// When the bridges of a site are gone others there speak for it, also of what was made before.
func TestBridgesAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSites(t, []string{"a", "b", "b", "b", "b", "b"}, receipt.Policy{Agree: 1}, nil)
		w.connected(t)
		bridges, others := w.bridges("b")
		maker := others[0]
		w.nodes[maker].build(t, "early", "early")
		w.spread(t, "early", maker)
		for _, i := range bridges {
			w.cut(i)
		}
		next, _ := w.bridges("b")
		if len(next) != locate.BridgesPerSite || slices.Contains(next, bridges[0]) || slices.Contains(next, bridges[1]) {
			t.Fatalf("bridges %v, after %v are gone", next, bridges)
		}
		w.nodes[maker].build(t, "late", "late")
		for _, name := range []string{"early", "late"} {
			w.told(t, keyer.Result(actionOf(name), root), []int{0}, next)
			w.want(t, 0, name, maker)
		}
	})
}

// relaying waits until these nodes pass on what every bridge of the other site has, at most 30 s.
func (w *world) relaying(t *testing.T, nodes []int) {
	t.Helper()
	for _, i := range nodes {
		for deadline := time.Now().Add(30 * time.Second); w.nodes[i].summary.Peers.Stat().Relay < locate.BridgesPerSite; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("node %d passes on %+v", i, w.nodes[i].summary.Peers.Stat())
			}
		}
	}
}

// What a site has crosses the line to another one once for each pair of bridges, however many members either has; the rest
// have it from their own bridges, and from the other one when that is gone.
func TestSummariesPassThroughBridges(t *testing.T) {
	w := newSites(t, []string{"a", "a", "a", "a", "a", "b", "b", "b"}, receipt.Policy{Agree: 1}, nil)
	w.connected(t)
	here, _ := w.bridges("a")
	_, others := w.bridges("b")
	maker := others[0]
	made := func(name string, crossings int) {
		t.Helper()
		bridges, others := w.bridges("a")
		w.relaying(t, bridges)
		w.nodes[others[0]].build(t, "before "+name, name) // once it is known everywhere no stream opens any more
		w.spread(t, "before "+name, others[0])
		before := w.net.Crossed()
		w.nodes[maker].build(t, name, name)
		w.spread(t, name, maker)
		if n := w.net.Crossed() - before; n != crossings {
			t.Errorf("%s: %d messages crossed, want %d", name, n, crossings)
		}
	}
	made("early", locate.BridgesPerSite*locate.BridgesPerSite)
	w.cut(here[0])
	next, _ := w.bridges("a")
	if slices.Contains(next, here[0]) || !slices.Contains(next, here[1]) {
		t.Fatalf("bridges %v, after one of %v is gone", next, here)
	}
	made("late", locate.BridgesPerSite*locate.BridgesPerSite)
	for i := range 5 {
		if i != here[0] {
			w.want(t, i, "early", maker)
			w.want(t, i, "late", maker)
		}
	}
}

// Where only bridges get through to each other, what other members of the other site have made is a miss: content is not
// passed on. What a bridge there has the one here takes, and everybody at this site from it.
func TestOnlyBridgesReachEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSites(t, []string{"a", "a", "a", "b", "b", "b"}, receipt.Policy{Agree: 1}, nil)
		here, askers := w.bridges("a")
		there, makers := w.bridges("b")
		site, bridge := map[peer.ID]string{}, map[peer.ID]bool{}
		for i, n := range w.nodes {
			site[n.ID], bridge[n.ID] = n.Site(), slices.Contains(here, i) || slices.Contains(there, i)
		}
		w.net.SetReach(func(from, to peer.ID) bool { return site[from] == site[to] || bridge[from] && bridge[to] })
		w.connected(t)
		w.nodes[makers[0]].build(t, "far", "far")
		w.spread(t, "far", makers[0])
		for _, at := range append(here, askers...) {
			w.want(t, at, "far")
		}
		w.nodes[there[0]].build(t, "of a bridge", "of a bridge")
		w.spread(t, "of a bridge", there[0])
		w.want(t, here[0], "of a bridge", there[0])
		w.told(t, keyer.Result(actionOf("of a bridge"), root), askers, append([]int{here[0]}, there...))
		w.want(t, askers[0], "of a bridge", here[0], there[0])
	})
}

// A site whose summary claims what nobody there has is not asked for long.
func TestEmptyClaimsOfASite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSites(t, []string{"a", "b", "b", "b"}, receipt.Policy{Agree: 1}, nil)
		w.connected(t)
		const claims = 400
		var keys []cid.Key
		name := func(i int) string { return fmt.Sprint("claimed ", i) }
		for i := range claims {
			keys = append(keys, keyer.Result(actionOf(name(i)), root))
		}
		_, others := w.bridges("b")
		if err := w.nodes[others[0]].summary.Announce(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		w.spread(t, name(claims-1), others[0])
		for i := range claims {
			w.want(t, 0, name(i))
		}
		var found []peer.ID
		for _, ids := range w.nodes[0].summary.Peers.Find(keys) {
			found = append(found, ids...)
		}
		if s := w.nodes[0].lookup.Stat(); len(found) > 0 || s.Asked == 0 || s.Silent == 0 {
			t.Errorf("%d claims are still believed after %+v", len(found), s)
		}
	})
}
