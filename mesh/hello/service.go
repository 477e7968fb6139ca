package hello

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// service answers members' questions about belonging.
type service struct {
	meshv1.UnimplementedMembershipServer
	seat   *member.Seat
	caller func(context.Context) (peer.ID, bool)
}

// Register adds the membership service to a server whose calls tell who makes them.
func Register(to grpc.ServiceRegistrar, seat *member.Seat, caller func(context.Context) (peer.ID, bool)) {
	meshv1.RegisterMembershipServer(to, &service{seat: seat, caller: caller})
}

// Renew implements meshv1.MembershipServer.
func (s *service) Renew(ctx context.Context, r *meshv1.RenewRequest) (*meshv1.RenewResponse, error) {
	id, ok := s.caller(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "who calls is not known")
	}
	cert, err := s.seat.Renew(id, r.Name, r.Site)
	switch {
	case errors.Is(err, member.ErrNotSteward):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return &meshv1.RenewResponse{Certificate: cert.Marshal()}, nil
}

// Sync implements meshv1.MembershipServer.
func (s *service) Sync(_ context.Context, r *meshv1.SyncRequest) (*meshv1.SyncResponse, error) {
	if len(r.Charter) > 0 {
		if err := take(s.seat, r.Charter, r.Secret); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	charter := s.seat.Charter()
	answer := &meshv1.SyncResponse{}
	if charter.Epoch >= r.Epoch {
		answer.Charter = charter.Marshal()
		if secrets, complete := s.seat.Secrets(); complete {
			answer.Secret = secrets[0][:]
		}
	}
	return answer, nil
}

// take adopts a charter and, when it came along, its secret.
func take(seat *member.Seat, charter, secret []byte) error {
	c, err := trust.ParseCharter(charter)
	if err != nil {
		return err
	}
	if len(secret) == 0 {
		return seat.Adopt(c, nil)
	}
	if len(secret) != len(trust.Secret{}) {
		return errFrame
	}
	known := trust.Secret(secret)
	return seat.Adopt(c, &known)
}

// Sync brings this node and a member to the newer of their charters.
func Sync(ctx context.Context, conn grpc.ClientConnInterface, seat *member.Seat) error {
	charter := seat.Charter()
	request := &meshv1.SyncRequest{Epoch: charter.Epoch}
	if secrets, complete := seat.Secrets(); complete {
		request.Charter, request.Secret = charter.Marshal(), secrets[0][:]
	}
	answer, err := meshv1.NewMembershipClient(conn).Sync(ctx, request)
	if err != nil {
		return fmt.Errorf("sync charter: %w", err)
	}
	if len(answer.Charter) == 0 {
		return nil
	}
	return take(seat, answer.Charter, answer.Secret)
}

// Renew asks a steward for a new certificate for this node and takes it.
func Renew(ctx context.Context, conn grpc.ClientConnInterface, seat *member.Seat) error {
	own := seat.Certificate()
	answer, err := meshv1.NewMembershipClient(conn).Renew(ctx, &meshv1.RenewRequest{Name: own.Name, Site: own.Site})
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	cert, err := trust.ParseCertificate(answer.Certificate)
	if err != nil {
		return err
	}
	return seat.Renewed(cert)
}
