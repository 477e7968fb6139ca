package discover

import (
	"context"
	"errors"
	"net/netip"
	"testing"
)

// TestEcho hears itself where an interface can multicast, leaves no trace with a node that listens, and says why it
// hears nothing elsewhere.
func TestEcho(t *testing.T) {
	at := group(t)
	node, found := open(t, Options{Self: ana, Group: at})
	interfaces, err := usable(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Echo(t.Context(), at, nil); (err == nil) != (len(interfaces) > 0) {
		t.Errorf("with %d interfaces that can multicast: %v", len(interfaces), err)
	}
	if len(found) != 0 || len(node.Strangers()) != 0 || !node.Hearing().Others.IsZero() {
		t.Errorf("a node takes it for a beacon: %+v, %+v", node.Strangers(), node.Hearing())
	}
	if err := Echo(t.Context(), at, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}); err == nil || errors.Is(err, ErrUnheard) {
		t.Errorf("with no interface allowed: %v", err)
	}
	if err := Echo(t.Context(), netip.MustParseAddrPort("203.0.113.1:1"), nil); err == nil {
		t.Error("an address that is not this machine's is listened on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Echo(ctx, at, nil); err == nil {
		t.Error("an end is not heeded")
	}
}

// TestUnheard listens where nobody speaks.
func TestUnheard(t *testing.T) {
	node, _ := open(t, Options{Self: ana, Group: group(t)})
	if err := comesBack(node.speak, []byte("nobody says this")); !errors.Is(err, ErrUnheard) {
		t.Errorf("silence: %v", err)
	}
}
