package simnet

import (
	"errors"
	"flag"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/mesh/roster"
)

var (
	seed  = flag.Uint64("seed", 1, "of the simulated network's weather")
	large = flag.Bool("large", false, "play the scenarios that take minutes: 500 nodes, eight hours")
)

// lan is a good office network.
var lan = Weather{Delay: 300 * time.Microsecond, Jitter: 2 * time.Millisecond, Loss: 0.001}

// office plays a scenario with n running nodes that know the first two as seeds.
func office(t *testing.T, n int, play func(t *testing.T, o *Office)) {
	synctest.Test(t, func(t *testing.T) {
		t.Logf("seed %d", *seed)
		network := NewNetwork(*seed)
		network.SetWeather(lan)
		o := NewOffice(network, 1)
		first, second := o.Add(), o.Add()
		for len(o.Nodes) < n {
			o.Add(first.AddrPort(), second.AddrPort())
		}
		second.seeds = append(second.seeds, first.AddrPort())
		for _, node := range o.Nodes {
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
		}
		play(t, o)
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // memberlist's last goroutines end by their own timeouts
	})
}

// within waits for a claim and reports the time it took.
func within(t *testing.T, limit time.Duration, claim string, holds func() bool) {
	t.Helper()
	took, ok := Until(limit, holds)
	if !ok {
		t.Errorf("not within %v: %s", limit, claim)
		return
	}
	t.Logf("%s: %v", claim, took.Round(100*time.Millisecond))
}

// all reports whether every running node of these knows every other as alive.
func all(nodes []*Node) func() bool {
	return func() bool {
		for _, n := range nodes {
			if !n.Knows(nodes) {
				return false
			}
		}
		return true
	}
}

// TestOffice: fifty nodes that know two seeds know each other within 10 s, and one that is killed is known
// dead to all within 10 s.
func TestOffice(t *testing.T) {
	office(t, 50, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "50 nodes know each other", all(o.Nodes))
		time.Sleep(30 * time.Second)
		if only := o.Nodes[7].Gossip.Status().TCPOnly.Err; only != nil {
			t.Errorf("UDP passes, but %v", only)
		}
		victim := o.Nodes[7]
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		rest := append(append([]*Node(nil), o.Nodes[:7]...), o.Nodes[8:]...)
		within(t, 10*time.Second, "a killed peer is known dead to all", all(rest))
	})
}

// TestLarge: five hundred nodes know each other within 60 s. It takes a minute of processor time:
// go test ./testnet/simnet -run TestLarge -large
func TestLarge(t *testing.T) {
	if !*large {
		t.Log("left out: -large plays it")
		return
	}
	office(t, 500, func(t *testing.T, o *Office) {
		within(t, 60*time.Second, "500 nodes know each other", all(o.Nodes))
	})
}

// TestIdle: an idle node of fifty costs less than 5 KB/s, sent and received.
func TestIdle(t *testing.T) {
	office(t, 50, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "50 nodes know each other", all(o.Nodes))
		time.Sleep(2 * time.Minute) // the storm of joining is over
		const span = 5 * time.Minute
		sum := func() (total int64) {
			for _, n := range o.Nodes {
				sent, received := n.Traffic()
				total += sent + received
			}
			return total
		}
		before := sum()
		time.Sleep(span)
		rate := float64(sum()-before) / span.Seconds() / float64(len(o.Nodes))
		t.Logf("an idle node of 50: %.0f bytes/s sent and received", rate)
		if rate > 5000 || rate < 500 {
			t.Errorf("%.0f bytes/s, at most 5000; far fewer, and nobody probes", rate)
		}
	})
}

// TestPartition: an office cut in two for ten minutes is one again within 15 s.
func TestPartition(t *testing.T) {
	office(t, 30, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "30 nodes know each other", all(o.Nodes))
		left, right := o.Nodes[:10], o.Nodes[10:]
		o.Net.Partition(addresses(left), addresses(right))
		within(t, time.Minute, "each side is by itself", func() bool { return all(left)() && all(right)() })
		time.Sleep(10 * time.Minute)
		o.Net.Heal()
		within(t, 15*time.Second, "a partition of ten minutes is healed", all(o.Nodes))
	})
}

// addresses are those of nodes.
func addresses(nodes []*Node) []netip.Addr {
	var out []netip.Addr
	for _, n := range nodes {
		out = append(out, n.Addr())
	}
	return out
}

// TestSleep: a node that was away for eight hours (20 minutes without -large) is back within 5 s of waking.
func TestSleep(t *testing.T) {
	office(t, 20, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "20 nodes know each other", all(o.Nodes))
		sleeper := o.Nodes[5]
		o.Net.Unplug(sleeper.Addr(), true)
		rest := without(o.Nodes, sleeper)
		within(t, time.Minute, "the sleeper is missed", all(rest))
		night := 20 * time.Minute // gossip forgets after half of one
		if *large {
			night = 8 * time.Hour
		}
		time.Sleep(night)
		o.Net.Unplug(sleeper.Addr(), false)
		if woken := sleeper.Woken(); len(woken) > 0 {
			t.Errorf("awake, it found that it had slept for %v", woken)
		}
		sleeper.Doze(night) // nothing but its clock tells
		within(t, 5*time.Second, "back after a night", func() bool {
			return all(o.Nodes)() && len(sleeper.Woken()) > 0 // the others may see it before it looks at its clock
		})
		if woken := sleeper.Woken(); len(woken) != 1 || woken[0].Round(time.Minute) != night {
			t.Errorf("it found that it had slept for %v, once for %v is right", woken, night)
		}
		o.Net.Unplug(sleeper.Addr(), true)
		within(t, time.Minute, "the sleeper is missed again", all(rest))
		o.Net.Unplug(sleeper.Addr(), false)
		sleeper.Gossip.Woke() // as the system tells of a nap too short to be noticed
		within(t, 5*time.Second, "back after a nap", all(o.Nodes))
	})
}

// without lists the others.
func without(nodes []*Node, not *Node) []*Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool { return n == not })
}

// TestMove: a node with a new address is known there within 15 s.
func TestMove(t *testing.T) {
	office(t, 20, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "20 nodes know each other", all(o.Nodes))
		mover := o.Nodes[3]
		to := o.Net.Address()
		mover.Move(to)
		within(t, 15*time.Second, "known at the new address", func() bool {
			for _, n := range without(o.Nodes, mover) {
				if m, _ := n.Roster.Now().Get(mover.ID); m.State != roster.Alive || m.Gossip.Addr() != to {
					return false
				}
			}
			return all(o.Nodes)()
		})
		time.Sleep(time.Minute) // gossip loses the old boot meanwhile
		if !all(o.Nodes)() {
			t.Error("the end of the old start was taken for the new one's")
		}
	})
}

// TestRestart: a node killed and started again is there within 10 s, and does not go with its former self.
func TestRestart(t *testing.T) {
	office(t, 20, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "20 nodes know each other", all(o.Nodes))
		n := o.Nodes[3]
		old, _ := o.Nodes[0].Roster.Now().Get(n.ID)
		if err := errors.Join(n.Kill(), n.Start()); err != nil {
			t.Fatal(err)
		}
		within(t, 10*time.Second, "back after a restart", func() bool {
			m, _ := o.Nodes[0].Roster.Now().Get(n.ID)
			return m.Boot != old.Boot && all(o.Nodes)()
		})
		for range 60 {
			time.Sleep(time.Second)
			if !all(o.Nodes)() {
				t.Fatal("the end of the old start was taken for the new one's")
			}
		}
	})
}

// TestLeave: a node that says goodbye is known to have left within 2 s.
func TestLeave(t *testing.T) {
	office(t, 20, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "20 nodes know each other", all(o.Nodes))
		leaver := o.Nodes[4]
		leaver.Gossip.Leave(t.Context())
		if err := leaver.Kill(); err != nil {
			t.Fatal(err)
		}
		within(t, 2*time.Second, "known to have left", func() bool {
			for _, n := range without(o.Nodes, leaver) {
				if m, _ := n.Roster.Now().Get(leaver.ID); m.State != roster.Left {
					return false
				}
			}
			return true
		})
	})
}

// TestNoPackets: where UDP is filtered, nodes find each other over streams and stay together.
func TestNoPackets(t *testing.T) {
	office(t, 10, func(t *testing.T, o *Office) {
		o.Net.SetWeather(Weather{Delay: time.Millisecond, NoPacket: true})
		within(t, 30*time.Second, "10 nodes know each other without UDP", all(o.Nodes))
		missed := 0
		for range 300 {
			time.Sleep(time.Second)
			if !all(o.Nodes)() {
				missed++
			}
		}
		if missed > 0 {
			t.Errorf("somebody was missed in %d of 300 s", missed)
		}
		for _, n := range o.Nodes {
			if n.Gossip.Status().TCPOnly.Err == nil {
				t.Errorf("%s does not know that UDP is filtered", n.Name)
			}
		}
	})
}

// TestPoorWifi: loss of a twentieth and delays up to a fifth of a second lose nobody for long.
func TestPoorWifi(t *testing.T) {
	office(t, 30, func(t *testing.T, o *Office) {
		o.Net.SetWeather(Weather{Delay: 2 * time.Millisecond, Jitter: 200 * time.Millisecond, Loss: 0.05})
		within(t, 20*time.Second, "30 nodes know each other", all(o.Nodes))
		missed := 0
		for range 300 {
			time.Sleep(time.Second)
			if !all(o.Nodes)() {
				missed++
			}
		}
		t.Logf("somebody was missed in %d of 300 s", missed)
		if missed > 15 {
			t.Errorf("somebody was missed in %d of 300 s", missed)
		}
	})
}

// TestStorm: two hundred nodes that know one seed and start in the same moment all get in, although the
// seed serves 128 at once at most.
func TestStorm(t *testing.T) {
	office(t, 200, func(t *testing.T, o *Office) {
		within(t, 30*time.Second, "200 nodes know each other", all(o.Nodes))
	})
}
