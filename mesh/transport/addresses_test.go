package transport_test

import (
	"net/netip"
	"testing"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/transport/transporttest"
)

// A node that listens on every IPv4 address tells others IPv4 addresses, also where the machine speaks IPv6.
func TestAddressesAreThoseListenedOn(t *testing.T) {
	identity, err := peer.Generate()
	if err != nil {
		t.Fatal(err)
	}
	x, err := transport.Open(transport.Options{Identity: identity, Gate: &transporttest.Gate{}, Listen: netip.MustParseAddrPort("0.0.0.0:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	if !x.Listening().Addr().Is4() {
		t.Errorf("it listens on %s", x.Listening())
	}
	all := x.Addresses()
	if len(all) == 0 {
		t.Error("others are told no address")
	}
	for _, a := range all {
		if !a.Addr().Is4() {
			t.Errorf("others are told %s", a)
		}
	}
}
