package transport_test

import (
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// TestTraffic: what goes over the connections is counted at both ends.
func TestTraffic(t *testing.T) {
	nodes := started(t, 2)
	for _, dial := range []string{"control", "bulk"} {
		from, to := nodes[0].Traffic(), nodes[1].Traffic()
		conn, err := nodes[0].Control(t.Context(), nodes[1].ID())
		if dial == "bulk" {
			conn, err = nodes[0].Bulk(t.Context(), nodes[1].ID())
		}
		if err != nil {
			t.Fatal(err)
		}
		watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "a name to be sent"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		counted := func() bool { // what was sent is counted a moment after it is on its way
			a, b := nodes[0].Traffic(), nodes[1].Traffic()
			return a.Out-from.Out >= 17 && a.In-from.In >= 2 && b.In-to.In >= 17 && b.Out-to.Out >= 2
		}
		for deadline := time.Now().Add(20 * time.Second); !counted(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: from %+v to %+v at the caller, from %+v to %+v at the called", dial, from, nodes[0].Traffic(), to, nodes[1].Traffic())
			}
		}
	}
}
