package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// errNothing is what an attack comes to that can have no answer.
var errNothing = errors.New("no answer is possible")

// prove does the TLS handshake by which peers prove their ids, for any peer on the other side.
func (s *stranger) prove(ctx context.Context, raw net.Conn, protocol string) (net.Conn, error) {
	config, _ := s.identity.ConfigForPeer("")
	config.NextProtos = []string{protocol}
	conn := tls.Client(raw, config)
	return conn, conn.HandshakeContext(ctx)
}
