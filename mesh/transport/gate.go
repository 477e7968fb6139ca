package transport

import (
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Gate decides who is let in. Its methods are called from many goroutines.
type Gate interface {
	// Greet speaks the hello on a fresh encrypted connection with a peer that has proven to be id; nil
	// lets it in. dialed says that this side opened the connection. The connection has a deadline.
	Greet(conn net.Conn, id peer.ID, dialed bool) error
	// Admits says, without I/O, why a peer is not let in; nil: it is.
	Admits(id peer.ID) error
	// Visit serves a peer that need not be known, on a connection that ends with the visit and has a
	// deadline.
	Visit(conn net.Conn, id peer.ID)
}

// greetTimeout bounds everything before a connection is let in, and a visit.
const greetTimeout = 10 * time.Second

// greet asks the gate with a deadline set on the connection.
func greet(g Gate, conn net.Conn, id peer.ID, dialed bool) error {
	if err := conn.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		return err
	}
	if err := g.Greet(conn, id, dialed); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// gater is the gate as libp2p asks it. The greeting has been spoken when InterceptSecured is called, but
// on QUIC, which has no place for one.
type gater struct{ gate Gate }

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g gater) InterceptPeerDial(lpeer.ID) bool { return true }

// InterceptAddrDial implements connmgr.ConnectionGater.
func (g gater) InterceptAddrDial(lpeer.ID, multiaddr.Multiaddr) bool { return true }

// InterceptAccept implements connmgr.ConnectionGater.
func (g gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured implements connmgr.ConnectionGater.
func (g gater) InterceptSecured(_ network.Direction, id lpeer.ID, _ network.ConnMultiaddrs) bool {
	return g.admits(id)
}

func (g gater) admits(id lpeer.ID) bool {
	ours, err := fromLibp2p(id)
	return err == nil && g.gate.Admits(ours) == nil
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (g gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// turnedOut closes a control connection with a peer that was turned out while it was opened: a Drop before this did not see it,
// a later one does.
func (g gater) turnedOut(_ network.Network, c network.Conn) {
	if !g.admits(c.RemotePeer()) {
		_ = c.Close() // what is closed already is no failure
	}
}
