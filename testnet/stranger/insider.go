package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"math"
	mathrand "math/rand/v2"
	"net/netip"
	"path/filepath"

	"github.com/hashicorp/memberlist"

	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/presence"
)

// insider is a member that means no good: it has the key of gossip, which is no proof of anything.
type insider struct {
	label string
	key   [32]byte
	names []string // of the others in gossip
}

// newInsider takes the seat of the node that keeps everything in dir and does not run, and looks who is there.
func newInsider(dir string, victim netip.AddrPort) (*insider, error) {
	identity, err := peer.LoadFile(filepath.Join(dir, "state", peer.File))
	if err != nil {
		return nil, err
	}
	seat, err := member.Open(filepath.Join(dir, "state", "mesh"), identity, member.Options{})
	if err != nil {
		return nil, err
	}
	secrets, complete := seat.Secrets()
	if !complete {
		return nil, errors.New("the member does not know the mesh's secret")
	}

	in := &insider{label: presence.Label(seat.Charter().Root), key: secrets[0].For("gossip")}
	return in, in.look(victim)
}

// look asks the victim whom it knows; it answers before it checks who asks.
func (in *insider) look(victim netip.AddrPort) error {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.SecretKey, c.BindPort = "insider", in.label, in.key[:], 0
	c.Logger = log.New(io.Discard, "", 0)
	list, err := memberlist.Create(c)
	if err != nil {
		return err
	}
	defer func() { _ = list.Shutdown() }()
	if _, err := list.Join([]string{victim.String()}); err != nil {
		return err
	}
	for _, n := range list.Members() {
		if n.Name != c.Name {
			in.names = append(in.names, n.Name)
		}
	}
	if len(in.names) == 0 {
		return errors.New("the victim tells of nobody")
	}
	return nil
}

// obituary is a datagram that says that somebody died, in an incarnation that nobody reaches by himself.
func (in *insider) obituary() []byte {
	const dead = 5 // memberlist's message type
	incarnation := []uint32{1, 1 << 31, math.MaxUint32 - 1, math.MaxUint32}[mathrand.IntN(4)]
	body := []byte{dead, 0x83} // a map of three
	body = binary.BigEndian.AppendUint32(append(packed(body, "Incarnation"), 0xce), incarnation)
	body = packed(packed(body, "Node"), in.names[mathrand.IntN(len(in.names))])
	body = packed(packed(body, "From"), in.names[mathrand.IntN(len(in.names))])
	return in.seal(body)
}

// packed appends a string in msgpack.
func packed(b []byte, s string) []byte { return append(append(b, 0xd9, byte(len(s))), s...) }

// seal encrypts a packet as memberlist does: the label, then version, nonce and AES-GCM.
func (in *insider) seal(body []byte) []byte {
	const labelled, version = 244, 1
	block, err := aes.NewCipher(in.key[:])
	if err != nil {
		panic(err) // the key has its size
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce)
	packet := append([]byte{labelled, byte(len(in.label))}, in.label...)
	packet = append(append(packet, version), nonce...)
	return gcm.Seal(packet, nonce, body, []byte(in.label))
}

// obituary sends one.
func (s *stranger) obituary(ctx context.Context) error {
	if s.insider == nil {
		return errors.New("obituaries are sent by members: name one's directory")
	}
	conn, err := s.dial(ctx, "udp")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(s.insider.obituary()); err != nil {
		return err
	}
	return errNothing
}
