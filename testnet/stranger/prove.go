package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// errNothing is what an attack comes to that can have no answer.
var errNothing = errors.New("no answer is possible")

// prove does the TLS handshake by which peers prove their ids, with any peer on the other side, and says which it is.
func (s *stranger) prove(ctx context.Context, raw net.Conn, protocol string) (net.Conn, peer.ID, error) {
	config, _ := s.identity.ConfigForPeer("")
	config.NextProtos = []string{protocol}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, peer.ID{}, err
	}
	key, err := libp2ptls.PubKeyFromCertChain(conn.ConnectionState().PeerCertificates)
	if err != nil {
		return nil, peer.ID{}, err
	}
	public, err := key.Raw()
	if err != nil || len(public) != len(peer.ID{}) {
		return nil, peer.ID{}, errors.Join(errors.New("the victim is no peer"), err)
	}
	return conn, peer.ID(public), nil
}
