package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/link"
)

// TestNetwork carries a laptop from its desk to a café and home.
func TestNetwork(t *testing.T) {
	address, metered, now := netip.Addr{}, false, time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	w := &network{
		address: func() netip.Addr { return address }, metered: func() bool { return metered },
		link: func(a netip.Addr) (string, bool) {
			name, found := map[string]string{"10.0.0.2": "eth0", "10.1.0.2": "wlan0", "127.0.0.1": "lo"}[a.String()]
			return name, found
		},
		links: link.Fake{"eth0": facts.Wired, "wlan0": facts.Wireless, "lo": facts.Wired},
	}
	for _, step := range []struct {
		address string
		metered bool
		later   time.Duration
		want    facts.Network
	}{
		{"", false, 0, facts.AnyNetwork},
		{"10.0.0.2", false, networkEvery / 2, facts.AnyNetwork}, // not looked at yet
		{"10.0.0.2", false, networkEvery, facts.Wired},
		{"10.1.0.2", false, networkEvery, facts.Wireless},
		{"10.1.0.2", true, networkEvery, facts.Metered},
		{"10.0.0.2", false, -time.Hour, facts.Wired}, // a clock that was set back does not keep an old answer
		{"10.9.0.2", false, networkEvery, facts.AnyNetwork},
		{"127.0.0.1", true, networkEvery, facts.AnyNetwork},
	} {
		address, metered, now = netip.Addr{}, step.metered, now.Add(step.later)
		if step.address != "" {
			address = netip.MustParseAddr(step.address)
		}
		if got := w.at(now); got != step.want {
			t.Errorf("at %s, metered %v: %q, want %q", step.address, step.metered, got, step.want)
		}
	}
}
