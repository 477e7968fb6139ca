package transport_test

import (
	"testing"

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
		if now := nodes[0].Traffic(); now.Out-from.Out < 17 || now.In-from.In < 2 {
			t.Errorf("%s: %+v, then %+v at the caller", dial, from, now)
		}
		if now := nodes[1].Traffic(); now.In-to.In < 17 || now.Out-to.Out < 2 {
			t.Errorf("%s: %+v, then %+v at the called", dial, to, now)
		}
	}
}
