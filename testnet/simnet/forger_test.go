package simnet

import (
	"bytes"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/gossip"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
)

// sent sends a forged message to every node.
func (f Forger) sent(t *testing.T, o *Office, message []byte) {
	t.Helper()
	for _, n := range o.Nodes {
		if err := f.Send(n.AddrPort(), message); err != nil {
			t.Fatal(err)
		}
	}
}

// victim is a node as the first one's roster has it.
func victim(o *Office, n *Node) roster.Member {
	m, _ := o.Nodes[0].Roster.Now().Get(n.ID)
	return m
}

// TestForgedDeath: whoever holds gossip's key can say that others are dead, once or without end. Nobody
// comes to call them dead: they contradict, and who looks finds them. That the forgery is believed at
// all, by gossip, shows in that the victim is looked after.
func TestForgedDeath(t *testing.T) {
	for name, incarnation := range map[string]func(round int) uint32{
		"once more than the truth":  func(round int) uint32 { return uint32(round) * 10 },
		"more than can be answered": func(int) uint32 { return math.MaxUint32 },
	} {
		t.Run(name, func(t *testing.T) {
			office(t, 10, func(t *testing.T, o *Office) {
				within(t, 10*time.Second, "10 nodes know each other", all(o.Nodes))
				time.Sleep(20 * time.Second)
				forger, target := o.Forger(), o.Nodes[4]
				doubted := false
				for round := 0; round < 120 && !t.Failed(); round++ {
					kind := []byte{deadMessage, suspectMessage}[round%2]
					forger.sent(t, o, Gone(kind, Name(victim(o, target)), incarnation(round+1)))
					for range 5 {
						time.Sleep(100 * time.Millisecond)
						for _, n := range without(o.Nodes, target) {
							m, _ := n.Roster.Now().Get(target.ID)
							doubted = doubted || m.State == roster.Suspect || n.Gossip.Status().Alive < len(o.Nodes)-1
							if m.State >= roster.Dead {
								t.Errorf("round %d: %s calls %s %v: %s", round, n.Name, target.Name, m.State, m.Reason)
							}
						}
					}
				}
				if !doubted {
					t.Error("no forgery got through: this proves nothing")
				}
				within(t, 15*time.Second, "all is well when the forger ends", all(o.Nodes))
				missed := 0
				for range 300 {
					time.Sleep(time.Second)
					if !all(o.Nodes)() {
						missed++
					}
				}
				if missed > 3 {
					t.Errorf("somebody was missed in %d of 300 s", missed)
				}
				within(t, 5*time.Minute, "gossip itself has forgotten the forgery", func() bool {
					return !slices.ContainsFunc(o.Nodes, func(n *Node) bool { return n.Gossip.Status().Alive != len(o.Nodes)-1 })
				})
			})
		})
	}
}

// TestForgedLife: cards that are not theirs who show them bring nobody in, move nobody and take nobody's name.
func TestForgedLife(t *testing.T) {
	office(t, 10, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "10 nodes know each other", all(o.Nodes))
		forger, target := o.Forger(), o.Nodes[4]
		at := victim(o, target).Gossip
		stranger := NewKey(99)
		forged := NewAuthority(2).Issue(stranger.ID(), target.Name, time.Now().Add(lifetime)) // of another mesh, with a member's name
		for _, message := range [][]byte{
			Alive(Name(victim(o, target)), 1000, forger.From, bytes.Repeat([]byte{1}, 300)),  // the victim is here, it says
			Alive(target.ID.String()+".anotherboot", 1, forger.From, forged),                 // and once more
			Alive(stranger.ID().String()+".boot", 1, forger.From, forged),                    // a stranger by a member's name
			Alive(peer.ID{}.String(), 1, forger.From, nil),                                   // nobody
			Alive(strings.Repeat("x", 40_000), 1, forger.From, nil),                          // a name without end
			Alive(stranger.ID().String()+".boot", 1, forger.From, make([]byte, 60_000)),      // metadata beyond every bound
			Alive(Name(victim(o, target)), 1001, at, make([]byte, 60_000)),                   // of a member
			Alive(stranger.ID().String()+".b", 1, netip.AddrPortFrom(at.Addr(), 0), forged),  // nowhere
			Alive(Name(victim(o, o.Nodes[0])), math.MaxUint32, forger.From, make([]byte, 9)), // of whom it is sent to
		} {
			forger.sent(t, o, message)
			time.Sleep(time.Second)
			for _, n := range o.Nodes {
				if got := len(n.Roster.Now().Members); got != len(o.Nodes)-1 {
					t.Errorf("%s has %d members", n.Name, got)
				}
			}
		}
		if m := victim(o, target); m.Gossip != at || m.Name != victim(o, target).Name {
			t.Errorf("moved to %v", m.Gossip)
		}
		if o.Nodes[1].Gossip.Status().Refused.Err == nil {
			t.Error("nobody noticed: no forgery got through, this proves nothing")
		}
		within(t, 15*time.Second, "all is well", all(o.Nodes))
	})
}

// mask signs with one key in the name of another.
type mask struct {
	id peer.ID
	Key
}

func (m mask) ID() peer.ID { return m.id }

// TestImpostors: gossip of the real thing, with key and label, but the card does not belong together: another's certificate,
// another's name without its key, a certificate of another mesh. The members stay by themselves.
func TestImpostors(t *testing.T) {
	office(t, 10, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "10 nodes know each other", all(o.Nodes))
		members := o.Nodes[:10]
		target, at := members[4], victim(o, members[4]).Gossip
		key := NewKey(99)
		for name, impostor := range map[string]struct {
			id   mask
			cert []byte
		}{
			"another's certificate": {mask{key.ID(), key}, target.member.cert},
			"another's name":        {mask{target.ID, key}, target.member.cert},
			"another mesh's":        {mask{key.ID(), key}, NewAuthority(2).Issue(key.ID(), target.Name, time.Now().Add(lifetime))},
		} {
			n := o.Add()
			n.member.cert = impostor.cert
			g, err := gossip.New(gossip.Options{Identity: impostor.id, Admission: n.member, Roster: n.Roster, Network: nodeNetwork{n},
				Label: o.Label, Epoch: 1, Key: o.Key, Address: n.AddrPort, Seeds: func() []netip.AddrPort { return []netip.AddrPort{at} }})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if !all(members)() || victim(o, target).Gossip != at {
				t.Errorf("%s: the members are not by themselves", name)
			}
			refused := members[4].Gossip.Status().Refused
			if refused.Err == nil || time.Since(refused.At) > time.Minute {
				t.Errorf("%s: it was not even tried", name)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
		if !all(members)() {
			t.Error("an impostor was believed")
		}
	})
}

// TestMalformed floods nodes with packets that are cut, changed or noise, sealed and not.
func TestMalformed(t *testing.T) {
	office(t, 5, func(t *testing.T, o *Office) {
		within(t, 10*time.Second, "5 nodes know each other", all(o.Nodes))
		random := rand.New(rand.NewPCG(*seed, 7))
		forger, nobody := o.Forger(), o.Forger()
		nobody.Key = gossip.Key{0xff}
		sound := Alive(Name(victim(o, o.Nodes[4])), 7, forger.From, make([]byte, 200))
		for i := range 5000 {
			message := bytes.Clone(sound)
			for range 1 + random.IntN(4) {
				message[random.IntN(len(message))] = byte(random.Uint32())
			}
			message = message[:random.IntN(len(message)+1)]
			if len(message) > 0 && random.IntN(2) == 0 {
				message[0] = byte(random.IntN(16)) // every kind of message
			}
			to := o.Nodes[i%5].AddrPort()
			if err := forger.Send(to, message); err != nil {
				t.Fatal(err)
			}
			if err := nobody.Send(to, message); err != nil {
				t.Fatal(err)
			}
			o.Net.Inject(forger.From, to, message)
			if i%50 == 0 {
				time.Sleep(100 * time.Millisecond)
			}
		}
		within(t, 15*time.Second, "all is well", all(o.Nodes))
		for _, n := range o.Nodes {
			if got := len(n.Roster.Now().Members); got != len(o.Nodes)-1 {
				t.Errorf("%s has %d members", n.Name, got)
			}
		}
	})
}

// TestClocks: a clock a day off, either way, keeps nobody out; one that is past every certificate keeps its
// own node alone, and harms no other.
func TestClocks(t *testing.T) {
	office(t, 6, func(t *testing.T, o *Office) {
		for _, skew := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
			n := o.Add(o.Nodes[0].AddrPort())
			n.Skew = skew
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		within(t, 10*time.Second, "8 nodes know each other", all(o.Nodes))
		late := o.Add(o.Nodes[0].AddrPort())
		late.Skew = 2 * lifetime
		if err := late.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if n := len(late.Roster.Now().Members); n != 0 {
			t.Errorf("certificates that are over by its clock let %d in", n)
		}
		for _, n := range o.Nodes[:8] {
			for _, m := range o.Nodes[:8] {
				if got, _ := n.Roster.Now().Get(m.ID); m != n && got.State != roster.Alive {
					t.Errorf("%s calls %s %v", n.Name, m.Name, got.State)
				}
			}
		}
	})
}
