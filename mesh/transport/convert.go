package transport

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/libp2p/go-libp2p/core/crypto"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ToLibp2p is a peer id as libp2p has it; both have the same text form.
func ToLibp2p(id peer.ID) lpeer.ID {
	key, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		panic(err) // only the length can be wrong
	}
	out, err := lpeer.IDFromPublicKey(key)
	if err != nil {
		panic(err) // an Ed25519 key always has one
	}
	return out
}

// fromLibp2p is a peer id as we have it; only Ed25519 keys have one.
func fromLibp2p(id lpeer.ID) (peer.ID, error) {
	key, err := id.ExtractPublicKey()
	if err != nil {
		return peer.ID{}, fmt.Errorf("peer id %s: %w", id, err)
	}
	return fromKey(key)
}

// FromLibp2p is the reverse of ToLibp2p. It fails for keys that are not Ed25519.
func FromLibp2p(id lpeer.ID) (peer.ID, error) { return fromLibp2p(id) }

// fromKey is the peer id of a public key.
func fromKey(key crypto.PubKey) (peer.ID, error) {
	raw, err := key.Raw()
	if err != nil || key.Type() != crypto.Ed25519 {
		return peer.ID{}, fmt.Errorf("public key is no Ed25519 key")
	}
	return peer.ID(raw), nil
}

// toMulti is an address as libp2p has it, for TCP.
func toMulti(a netip.AddrPort) (multiaddr.Multiaddr, error) {
	return manet.FromNetAddr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Addr().Unmap(), a.Port())))
}

// fromMulti is a TCP address as we have it; ok is false for any other.
func fromMulti(a multiaddr.Multiaddr) (netip.AddrPort, bool) {
	na, err := manet.ToNetAddr(a)
	if err != nil {
		return netip.AddrPort{}, false
	}
	tcp, ok := na.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}
