package doctor

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// sound is a company in which nothing is wrong.
func sound() *Company {
	now := time.Now()
	return &Company{
		Mesh: "haus", Name: "ana", Address: netip.MustParseAddrPort("10.0.0.1:7946"), Members: netip.MustParseAddrPort("0.0.0.0:8982"),
		Peers:   []Peer{{ID: "b", Name: "ben", Alive: true}, {ID: "e", Name: "eva", Alive: true}, {ID: "t", Name: "tom", Alive: true}},
		Beacons: Beacons{On: true, Echo: now, Others: now, Since: now.Add(-time.Hour)},
		DialBack: func(context.Context, Peer) (Dialed, error) {
			return Dialed{At: netip.MustParseAddrPort("10.0.0.1:8982"), Reached: true}, nil
		},
	}
}

func gone(c *Company) {
	for i := range c.Peers {
		c.Peers[i].Alive = false
	}
}

// TestCompany spoils one thing at a time: only what is its consequence is hidden, and only the cause told.
func TestCompany(t *testing.T) {
	const all = "mesh address, multicast, other meshes, names of members, members in sight, gossip over UDP, clocks of members, connections from members"
	const below = "mesh address, multicast, other meshes, names of members, members in sight"
	for name, test := range map[string]struct {
		spoil       func(*Company)
		want, asked string
	}{
		"well":             {func(*Company) {}, "", all},
		"no address":       {func(c *Company) { c.Address = netip.AddrPort{} }, "no address that others", "mesh address, names of members"},
		"none allowed":     {func(c *Company) { c.Address, c.Networks = netip.AddrPort{}, []netip.Prefix{{}} }, "mesh.networks", "mesh address, names of members"},
		"loopback":         {func(c *Company) { c.Address = netip.MustParseAddrPort("127.0.0.1:1") }, "", all},
		"no beacons":       {func(c *Company) { c.Beacons = Beacons{} }, "", all},
		"beacon fault":     {func(c *Company) { c.Beacons.Fault = errors.New("no route") }, "no route", all},
		"no echo":          {func(c *Company) { c.Beacons.Echo = time.Time{} }, "does not hear its own beacon", all},
		"echo no more":     {func(c *Company) { c.Beacons.Echo = c.Beacons.Since }, "does not hear its own beacon", all},
		"just begun":       {func(c *Company) { c.Beacons = Beacons{On: true, Since: time.Now()} }, "", all},
		"strangers":        {func(c *Company) { c.Strangers = []string{"other"} }, "", all},
		"alone by another": {func(c *Company) { c.Strangers, c.Peers = []string{"other"}, nil }, "beside other", all},
		"alone":            {func(c *Company) { c.Peers = nil }, "", all},
		"one name twice":   {func(c *Company) { c.Peers[1].Name = "ana" }, "more than one member is called ana", all},
		"firewall":         {gone, "a firewall", below},
		"isolation":        {func(c *Company) { gone(c); c.Beacons.Others = time.Time{} }, "client isolation", below},
		"no UDP":           {func(c *Company) { c.TCPOnly = errors.New("ben") }, "UDP is blocked but TCP is well", all},
		"strained":         {func(c *Company) { c.Strain = 5 }, "late with its own answers", all},
		"a clock":          {func(c *Company) { c.Peers[0].Skew = -24 * time.Hour }, "ben by -24h0m0s", all},
		"own clock": {func(c *Company) { c.Peers[0].Skew, c.Peers[1].Skew = time.Hour, time.Hour },
			"this node's clock is wrong, going by 2 of 3", all},
		"half open": {func(c *Company) {
			c.DialBack = func(_ context.Context, p Peer) (Dialed, error) {
				return Dialed{Reached: p.Name != "eva", Failure: "timeout"}, nil
			}
		}, "eva is reached from here but cannot connect", all},
		"silent": {func(c *Company) {
			c.DialBack = func(ctx context.Context, p Peer) (Dialed, error) {
				if _, bounded := ctx.Deadline(); !bounded {
					t.Error("a peer may take for ever")
				}
				return Dialed{Reached: true}, map[string]error{"tom": errors.New("refused")}[p.Name]
			}
		}, "tom cannot be asked from here: refused", all},
	} {
		c := sound()
		test.spoil(c)
		var asked, wrong []string
		for _, r := range Run(t.Context(), c.checks()) {
			if len(asked) == 0 || asked[len(asked)-1] != r.Check {
				asked = append(asked, r.Check)
			}
			if r.Verdict != OK {
				wrong = append(wrong, r.Fact)
			}
			if (r.Verdict == OK) != (r.Fix == "") || r.Fact == "" || strings.HasSuffix(r.Fact, ".") {
				t.Errorf("%s: %+v: a fix goes with what is not ok", name, r)
			}
		}
		if got := strings.Join(asked, ", "); got != test.asked {
			t.Errorf("%s: asked %s", name, got)
		}
		if test.want == "" && len(wrong) > 0 || test.want != "" && (len(wrong) != 1 || !strings.Contains(wrong[0], test.want)) {
			t.Errorf("%s: found %q, want %q alone", name, wrong, test.want)
		}
	}
}
