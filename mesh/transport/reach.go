package transport

import (
	"context"
	"fmt"
	"net/netip"

	"google.golang.org/grpc/codes"
	gpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/peer"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// maxPorts is how many ports one caller may have dialed.
const maxPorts = 4

// Reach is how a peer finds this node.
type Reach struct {
	Address netip.AddrPort // where it tried: this node's address as the peer sees it
	Reached bool
	Failure string // why not
}

// DialBack asks a peer to connect to this node, so that a firewall that lets calls out and none in is
// known. Errors are those of the call to the peer.
func (t *Transport) DialBack(ctx context.Context, id peer.ID) (Reach, error) {
	conn, err := t.Control(ctx, id)
	if err != nil {
		return Reach{}, err
	}
	answer, err := meshv1.NewReachClient(conn).DialBack(ctx, &meshv1.DialBackRequest{Ports: []uint32{uint32(t.listen.Port())}})
	if err != nil {
		return Reach{}, fmt.Errorf("ask %s to dial back: %w", id.Short(), err)
	}
	ip, err := netip.ParseAddr(answer.Address)
	if err != nil || len(answer.Ports) != 1 {
		return Reach{}, fmt.Errorf("ask %s to dial back: the answer makes no sense", id.Short())
	}
	p := answer.Ports[0]
	return Reach{Address: netip.AddrPortFrom(ip, t.listen.Port()), Reached: p.Reached, Failure: p.Failure}, nil
}

// reach answers DialBack. It dials nothing but the address the caller itself comes from, and gives
// nothing away but whether the caller answers there.
type reach struct {
	meshv1.UnimplementedReachServer
	transport *Transport
}

// registerReach adds the service to the control server.
func (t *Transport) registerReach() {
	meshv1.RegisterReachServer(t.controlServer, &reach{transport: t})
}

// DialBack implements meshv1.ReachServer.
func (r *reach) DialBack(ctx context.Context, request *meshv1.DialBackRequest) (*meshv1.DialBackResponse, error) {
	id, _ := Caller(ctx)
	p, _ := gpeer.FromContext(ctx)
	from, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, "the call comes from no IP address")
	}
	if len(request.Ports) > maxPorts {
		return nil, status.Errorf(codes.InvalidArgument, "at most %d ports", maxPorts)
	}
	answer := &meshv1.DialBackResponse{Address: from.Addr().Unmap().String()}
	for _, port := range request.Ports {
		if port == 0 || port > 65535 {
			return nil, status.Error(codes.InvalidArgument, "a port is 1 to 65535")
		}
		found := &meshv1.DialBackResponse_Port{Port: port}
		conn, err := r.transport.dialBulkAt(ctx, id, netip.AddrPortFrom(from.Addr().Unmap(), uint16(port)))
		if err != nil {
			found.Failure = err.Error()
		} else {
			found.Reached = true
			conn.Close()
		}
		answer.Ports = append(answer.Ports, found)
	}
	return answer, nil
}
