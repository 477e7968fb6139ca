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
		Expires: now.Add(20 * 24 * time.Hour),
		Peers: []Peer{{ID: "b", Name: "ben", Alive: true, Near: true, Heard: true}, {ID: "e", Name: "eva", Alive: true, Near: true, Heard: true},
			{ID: "t", Name: "tom", Alive: true}},
		Beacons: Beacons{On: true, Echo: now, Others: now, Since: now.Add(-time.Hour)},
		DialBack: func(context.Context, Peer) (Dialed, error) {
			return Dialed{At: netip.MustParseAddrPort("10.0.0.1:8982"), Reached: true}, nil
		},
	}
}

// gone lets the members near, or all, be there no more.
func gone(c *Company, all, heard bool) {
	for i := range c.Peers {
		p := &c.Peers[i]
		p.Alive, p.Heard = p.Alive && !all && !p.Near, p.Heard && heard
	}
}

// TestCompany spoils one thing at a time: only what is its consequence is hidden, and only the cause told.
func TestCompany(t *testing.T) {
	const all = "mesh membership, mesh address, multicast, other meshes, names of members, members in sight, gossip over UDP, clocks of members, connections from members"
	const below = "mesh membership, mesh address, multicast, other meshes, names of members, members in sight"
	for name, test := range map[string]struct {
		spoil       func(*Company)
		want, asked string
	}{
		"well":             {func(*Company) {}, "", all},
		"no address":       {func(c *Company) { c.Address = netip.AddrPort{} }, "no address that others", "mesh membership, mesh address, names of members"},
		"none allowed":     {func(c *Company) { c.Address, c.Networks = netip.AddrPort{}, []netip.Prefix{{}} }, "mesh.networks", "mesh membership, mesh address, names of members"},
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
		"expired": {func(c *Company) { c.Expires = time.Now() }, "so nobody lets it in",
			"mesh membership, mesh address, multicast, other meshes, names of members"},
		"expires soon":     {func(c *Company) { c.Expires = time.Now().Add(time.Hour) }, "no steward was there", all},
		"firewall":         {func(c *Company) { gone(c, true, true) }, "a firewall", below},
		"firewall near by": {func(c *Company) { gone(c, false, true) }, "beacons of 2 members are heard", below},
		"isolation":        {func(c *Company) { gone(c, false, false) }, "none of the 2 on this network", all},
		"nobody":           {func(c *Company) { gone(c, true, false) }, "they are off, or", all},
		"nobody yet":       {func(c *Company) { gone(c, true, false); c.Beacons.Since = time.Now() }, "", all},
		"one is off":       {func(c *Company) { c.Peers[0].Alive, c.Peers[0].Heard = false, false }, "", all},
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
