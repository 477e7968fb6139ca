package transport

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	gpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// identified is a connection whose other end has proven who it is.
type identified struct {
	net.Conn
	id peer.ID
}

// identity is what gRPC knows of the other end of a connection.
type identity struct {
	credentials.CommonAuthInfo
	id peer.ID
}

// AuthType implements credentials.AuthInfo.
func (identity) AuthType() string { return "buildmesh" }

// Caller is the peer that makes the call ctx belongs to, proven by its connection. It works in the
// handlers of both servers.
func Caller(ctx context.Context) (peer.ID, bool) {
	p, ok := gpeer.FromContext(ctx)
	if !ok {
		return peer.ID{}, false
	}
	i, ok := p.AuthInfo.(identity)
	return i.id, ok
}

// proven are gRPC's credentials for connections that are encrypted and identified before gRPC sees them.
type proven struct{}

var errUnproven = errors.New("connection is not identified")

// handshake tells gRPC who the other end is.
func (proven) handshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := conn.(identified)
	if !ok {
		return nil, nil, errUnproven
	}
	return c.Conn, identity{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, c.id}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (p proven) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return p.handshake(conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (p proven) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return p.handshake(conn)
}

// Info implements credentials.TransportCredentials.
func (proven) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "buildmesh"}
}

// Clone implements credentials.TransportCredentials.
func (p proven) Clone() credentials.TransportCredentials { return p }

// OverrideServerName implements credentials.TransportCredentials.
func (proven) OverrideServerName(string) error { return nil }

// admitted refuses a call of a peer the gate does not admit (any more).
func admitted(ctx context.Context, g Gate) error {
	id, ok := Caller(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, errUnproven.Error())
	}
	if err := g.Admits(id); err != nil {
		return status.Error(codes.Unauthenticated, "not admitted") // why is not the caller's to know
	}
	return nil
}

// guarded are the server options that ask the gate at every call.
func guarded(g Gate) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(proven{}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := admitted(ctx, g); err != nil {
				return nil, err
			}
			return h(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if err := admitted(s.Context(), g); err != nil {
				return err
			}
			return h(srv, s)
		}),
	}
}
