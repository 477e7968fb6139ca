package main

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// What a stranger does that has read the protocol: everything has its proper form, and the stranger's own signature.

// knock shows an invite that nobody made.
func (s *stranger) knock(ctx context.Context) error {
	return s.door(ctx, helloProtocol, func(conn net.Conn, victim peer.ID) error {
		invite, err := peer.Generate()
		if err != nil {
			return err
		}
		key := invite.ID()
		return say(conn, &meshv1.Knock{Invite: key[:], Proof: trust.JoinProof(invite, s.self.ID(), victim)})
	})
}

// claim shows a certificate of a mesh of its own, under the name of somebody of the victim's.
func (s *stranger) claim(ctx context.Context) error {
	return s.door(ctx, memberProtocol, func(conn net.Conn, victim peer.ID) error {
		return say(conn, &meshv1.Greeting{Certificate: s.certificate(victim)})
	})
}

// charter claims to know a newer charter than the victim, which makes its own root the victim's.
func (s *stranger) charter(ctx context.Context) error {
	return s.door(ctx, memberProtocol, func(conn net.Conn, victim peer.ID) error {
		if err := say(conn, &meshv1.Greeting{Certificate: s.certificate(victim), Epoch: math.MaxInt64}); err != nil {
			return err
		}
		charter := trust.Found(s.root, "ana", s.self.ID(), trust.Secret{}, time.Now())
		return say(conn, &meshv1.Update{Charter: charter.Marshal()})
	})
}

// certificate is one for the stranger, issued for the mesh that the victim might be the root of.
func (s *stranger) certificate(victim peer.ID) []byte {
	return trust.Issue(trust.Certificate{Peer: s.self.ID(), Name: "ben"}, victim, s.self, time.Now()).Marshal()
}

// say writes a message as mesh/hello does.
func say(conn io.Writer, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.AppendUvarint(nil, uint64(len(data))), data...))
	return err
}
