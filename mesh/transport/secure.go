package transport

import (
	"context"
	"net"

	"github.com/libp2p/go-libp2p/core/crypto"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// securityProtocol is TLS with the greeting behind it: libp2p nodes of other networks do not have it.
const securityProtocol = "/buildmesh/tls/1"

// secure is libp2p's TLS transport followed by the greeting, before a byte reaches the stream muxer.
type secure struct {
	*libp2ptls.Transport
	gate Gate
}

// newSecure gives the constructor libp2p asks for.
func newSecure(g Gate) any {
	return func(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*secure, error) {
		inner, err := libp2ptls.New(id, key, muxers)
		if err != nil {
			return nil, err
		}
		return &secure{inner, g}, nil
	}
}

// SecureInbound implements sec.SecureTransport.
func (s *secure) SecureInbound(ctx context.Context, conn net.Conn, id lpeer.ID) (sec.SecureConn, error) {
	c, err := s.Transport.SecureInbound(ctx, conn, id)
	c, err = s.greeted(c, err, false)
	if g, ok := conn.(*guest); ok && err == nil {
		g.prove()
	}
	return c, err
}

// SecureOutbound implements sec.SecureTransport.
func (s *secure) SecureOutbound(ctx context.Context, conn net.Conn, id lpeer.ID) (sec.SecureConn, error) {
	c, err := s.Transport.SecureOutbound(ctx, conn, id)
	return s.greeted(c, err, true)
}

// greeted speaks the greeting on a connection that TLS has finished with.
func (s *secure) greeted(c sec.SecureConn, err error, dialed bool) (sec.SecureConn, error) {
	if err != nil {
		return nil, err
	}
	id, err := fromLibp2p(c.RemotePeer())
	if err == nil {
		err = greet(s.gate, c, id, dialed)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
