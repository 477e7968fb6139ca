package transport

import (
	"context"
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// controlProtocol is the libp2p stream that carries control gRPC.
const controlProtocol = "/buildmesh/control/1"

// MaxMessage is the largest gRPC message, both ways: a batch of 4 MiB and what stands around it.
const MaxMessage = 4<<20 + 64<<10

// streamConn is a libp2p stream as a net.Conn.
type streamConn struct{ network.Stream }

// LocalAddr implements net.Conn.
func (s streamConn) LocalAddr() net.Addr { return netAddr(s.Conn().LocalMultiaddr()) }

// RemoteAddr implements net.Conn.
func (s streamConn) RemoteAddr() net.Addr { return netAddr(s.Conn().RemoteMultiaddr()) }

// Close implements net.Conn. gRPC has said its goodbyes before; nothing is owed to the peer.
func (s streamConn) Close() error { return s.Reset() }

// accepted takes a control stream a peer opened.
func (t *Transport) accepted(s network.Stream) {
	id, err := fromLibp2p(s.Conn().RemotePeer())
	if err != nil || t.gate.Admits(id) != nil {
		s.Reset()
		return
	}
	t.controlQueue.push(identified{streamConn{s}, id})
}

// dialControl opens a control stream to a peer.
func (t *Transport) dialControl(ctx context.Context, id peer.ID) (net.Conn, error) {
	to := ToLibp2p(id)
	t.forgive(id) // gRPC waits between attempts; libp2p would wait 5 s after the first failure
	if err := t.host.Connect(ctx, lpeer.AddrInfo{ID: to}); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", id.Short(), err)
	}
	s, err := t.host.NewStream(ctx, to, controlProtocol)
	if err != nil {
		return nil, fmt.Errorf("open stream to %s: %w", id.Short(), err)
	}
	return identified{streamConn{s}, id}, nil
}

// Control is the connection for small calls to a peer. It does no I/O; calls dial. Errors: ErrClosed.
func (t *Transport) Control(_ context.Context, id peer.ID) (grpc.ClientConnInterface, error) {
	return t.client(id, t.controls, t.dialControl)
}
