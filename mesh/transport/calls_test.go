package transport_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/transport"
	"github.com/buildmesh/buildmesh/mesh/transport/transporttest"
)

// whoami is a health service that tells in an error's message who calls; Watch never ends by itself.
type whoami struct {
	healthpb.UnimplementedHealthServer
	kind string
}

func (w whoami) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	id, ok := transport.Caller(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "no caller")
	}
	return nil, status.Error(codes.AlreadyExists, w.kind+" "+id.String())
}

func (w whoami) Watch(_ *healthpb.HealthCheckRequest, s grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	if err := s.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

// started are n transports whose services tell who calls.
func started(t *testing.T, n int) []*transporttest.Node {
	return transporttest.Start(t, n, func(_ int, control, bulk grpc.ServiceRegistrar) {
		healthpb.RegisterHealthServer(control, whoami{kind: "control"})
		healthpb.RegisterHealthServer(bulk, whoami{kind: "bulk"})
	})
}

// answer is what the peer says when it is asked who calls, over one of the two kinds.
func answer(t *testing.T, from *transporttest.Node, to peer.ID, kind string) string {
	t.Helper()
	dial := from.Control
	if kind == "bulk" {
		dial = from.Bulk
	}
	conn, err := dial(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if status.Code(err) == codes.AlreadyExists {
		return status.Convert(err).Message()
	}
	return err.Error()
}

// reached asks until the peer answers as it should: gRPC waits a little between two attempts to connect.
func reached(t *testing.T, from *transporttest.Node, to peer.ID, kind string) bool {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if answer(t, from, to, kind) == kind+" "+from.ID().String() {
			return true
		}
	}
	return false
}

func TestCalls(t *testing.T) {
	nodes := started(t, 3)
	for _, from := range nodes {
		for _, to := range nodes {
			for _, kind := range []string{"control", "bulk"} {
				if from == to {
					continue
				}
				if got := answer(t, from, to.ID(), kind); got != kind+" "+from.ID().String() {
					t.Errorf("%s call: the peer answers %q", kind, got)
				}
			}
		}
	}
	if !nodes[0].Connected(nodes[1].ID()) || nodes[0].Connected(peer.ID{1}) {
		t.Error("node 0 is connected with node 1 and with nobody else")
	}
}

// TestDrop shows that a member that is barred loses what is open, and its new calls are refused.
func TestDrop(t *testing.T) {
	nodes := started(t, 2)
	a, b := nodes[0], nodes[1]
	for _, kind := range []string{"control", "bulk"} {
		answer(t, a, b.ID(), kind)
		conn, _ := a.Control(t.Context(), b.ID())
		if kind == "bulk" {
			conn, _ = a.Bulk(t.Context(), b.ID())
		}
		watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		b.Gate.Bar(a.ID(), true)
		if got := answer(t, a, b.ID(), kind); got == kind+" "+a.ID().String() {
			t.Errorf("%s: a barred peer's call on an open connection was answered", kind)
		}
		b.Drop(a.ID())
		if _, err := watch.Recv(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: the open stream of a dropped peer ended with %v", kind, err)
		}
		if got := answer(t, a, b.ID(), kind); got == kind+" "+a.ID().String() {
			t.Errorf("%s: a barred peer came back", kind)
		}
		b.Gate.Bar(a.ID(), false)
		if !reached(t, a, b.ID(), kind) {
			t.Errorf("%s: a peer that was let in again does not come through", kind)
		}
	}
}

// TestForget shows that a peer that was forgotten is dialed no more, and is again once it is learned.
func TestForget(t *testing.T) {
	nodes := started(t, 2)
	a, b := nodes[0], nodes[1]
	answer(t, a, b.ID(), "bulk")
	a.Forget(b.ID())
	for _, kind := range []string{"control", "bulk"} {
		if got := answer(t, a, b.ID(), kind); got == kind+" "+a.ID().String() {
			t.Errorf("%s: a forgotten peer was reached", kind)
		}
	}
	a.Learn(b.ID(), append([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}, b.Addresses()...))
	for _, kind := range []string{"control", "bulk"} {
		if !reached(t, a, b.ID(), kind) {
			t.Errorf("%s: a peer learned again, behind an address nobody has, is not reached", kind)
		}
	}
}

// TestImpostor shows that an address where another peer answers is no way to the one meant.
func TestImpostor(t *testing.T) {
	nodes := started(t, 2)
	a, b := nodes[0], nodes[1]
	meant, err := peer.Generate()
	if err != nil {
		t.Fatal(err)
	}
	a.Learn(meant.ID(), b.Addresses())
	for _, kind := range []string{"control", "bulk"} {
		if got := answer(t, a, meant.ID(), kind); got == kind+" "+a.ID().String() {
			t.Errorf("%s: another peer was taken for the one meant", kind)
		}
	}
}

func TestDialBack(t *testing.T) {
	nodes := started(t, 2)
	got, err := nodes[0].DialBack(t.Context(), nodes[1].ID())
	if err != nil || !got.Reached || got.Address != nodes[0].Listening() {
		t.Errorf("%+v, %v; want reached at %s", got, err, nodes[0].Listening())
	}
	nodes[0].Gate.Bar(nodes[1].ID(), true) // as a firewall that lets nothing in
	got, err = nodes[0].DialBack(t.Context(), nodes[1].ID())
	if err != nil || got.Reached || got.Failure == "" {
		t.Errorf("%+v, %v; want not reached and why", got, err)
	}
}

func TestClosed(t *testing.T) {
	nodes := started(t, 2)
	a, b := nodes[0], nodes[1]
	answer(t, a, b.ID(), "control")
	answer(t, a, b.ID(), "bulk")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Control(t.Context(), b.ID()); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Control after Close: %v", err)
	}
	if _, err := a.Bulk(t.Context(), b.ID()); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Bulk after Close: %v", err)
	}
	if got := answer(t, b, a.ID(), "control"); got == "control "+b.ID().String() {
		t.Error("a closed transport answers")
	}
}

// TestQUIC shows that UDP is listened on when it was asked for, and else not.
func TestQUIC(t *testing.T) {
	nodes := started(t, 1)
	identity, err := peer.Generate()
	if err != nil {
		t.Fatal(err)
	}
	gate := &transporttest.Gate{}
	far, err := transport.Open(transport.Options{Identity: identity, Gate: gate,
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), QUIC: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	udp := 0
	for _, a := range far.Host().Network().ListenAddresses() {
		if _, err := a.ValueForProtocol(0x0111); err == nil { // udp
			udp++
		}
	}
	if udp != 1 || len(nodes[0].Host().Network().ListenAddresses()) != 1 {
		t.Errorf("QUIC listens at %d addresses of the one that asked; the other has %v", udp, nodes[0].Host().Network().ListenAddresses())
	}
}
