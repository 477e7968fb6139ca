package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/libp2p/go-libp2p/core/crypto"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Protocols behind TLS on the shared port (ALPN).
const (
	bulkALPN  = "h2"
	visitALPN = "buildmesh-hello/1"
)

const (
	// Chunk is the size in which streams of content should be cut.
	Chunk = 256 << 10
	// window is how much of a stream may be under way: a gigabit over 60 ms.
	window = 8 << 20
	// bulkStreams is how many calls one peer may have open on a bulk connection.
	bulkStreams = 64
)

// Bulk is the connection for content to a peer: calls that stream Chunks or batches of up to
// MaxMessage. It does no I/O; calls dial. Errors: ErrClosed.
func (t *Transport) Bulk(_ context.Context, id peer.ID) (grpc.ClientConnInterface, error) {
	return t.client(id, t.bulks, t.dialBulk)
}

// serveTLS runs one connection whose first bytes were TLS: to the end of a visit, or until gRPC has
// closed it.
func (t *Transport) serveTLS(g *guest) {
	ctx, cancel := context.WithTimeout(t.ctx, greetTimeout)
	defer cancel()
	conn, id, err := t.handshake(ctx, g, "", true, bulkALPN, visitALPN)
	if err != nil {
		return
	}
	defer conn.Close()
	if conn.ConnectionState().NegotiatedProtocol == visitALPN {
		if deadline, ok := ctx.Deadline(); ok && conn.SetDeadline(deadline) == nil {
			t.gate.Visit(conn, id)
		}
		return
	}
	if greet(t.gate, conn, id, false) != nil || g.scope.SetPeer(ToLibp2p(id)) != nil {
		return
	}
	g.prove()
	ours, err := t.admitted(id, conn)
	if err != nil {
		return
	}
	defer t.open.untrack(id, ours)
	t.bulkQueue.push(identified{ours, id})
	<-ours.closed
}

// handshake runs TLS with libp2p's identities; with an empty id any peer will do.
func (t *Transport) handshake(ctx context.Context, raw net.Conn, id lpeer.ID, server bool, protocols ...string) (*tls.Conn, peer.ID, error) {
	config, key := t.identity.ConfigForPeer(id)
	config.NextProtos = protocols
	records := gather(raw)
	conn := tls.Client(records, config)
	if server {
		conn = tls.Server(records, config)
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, peer.ID{}, err
	}
	var proven crypto.PubKey
	select {
	case proven = <-key:
	default:
	}
	if proven == nil || conn.ConnectionState().NegotiatedProtocol == "" {
		conn.Close()
		return nil, peer.ID{}, errUnproven
	}
	theirs, err := fromKey(proven)
	if err != nil {
		conn.Close()
		return nil, peer.ID{}, err
	}
	return conn, theirs, nil
}

// dialBulk opens a bulk connection to a peer, at the addresses known, one after the other.
func (t *Transport) dialBulk(ctx context.Context, id peer.ID) (net.Conn, error) {
	var errs []error
	for _, a := range t.addressesOf(id) {
		ours, err := t.dialBulkAt(ctx, id, a)
		if err == nil {
			return identified{ours, id}, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("dial %s: no address is known", id.Short())
	}
	return nil, errors.Join(errs...)
}

// dialBulkAt opens and greets at one address.
func (t *Transport) dialBulkAt(ctx context.Context, id peer.ID, a netip.AddrPort) (*tracked, error) {
	conn, _, err := t.dialTLS(ctx, ToLibp2p(id), a, bulkALPN)
	if err != nil {
		return nil, fmt.Errorf("dial %s at %s: %w", id.Short(), a, err)
	}
	if err := greet(t.gate, conn, id, true); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet %s at %s: %w", id.Short(), a, err)
	}
	ours, err := t.admitted(id, conn)
	if err != nil {
		return nil, fmt.Errorf("greeted %s at %s: %w", id.Short(), a, err)
	}
	return ours, nil
}

// admitted tracks a connection that was greeted. Who was turned out since then is asked about once more: a Drop before this did
// not see the connection, a later one does.
func (t *Transport) admitted(id peer.ID, conn *tls.Conn) (*tracked, error) {
	ours := t.open.track(id, conn)
	if err := t.gate.Admits(id); err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// dialTLS connects to an address.
func (t *Transport) dialTLS(ctx context.Context, id lpeer.ID, a netip.AddrPort, protocol string) (*tls.Conn, peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, peer.ID{}, err
	}
	return t.handshake(ctx, raw, id, false, protocol)
}

// Visit connects to whoever listens at an address, as a stranger, and gives the connection and who it
// is; check is called before anything is sent. The caller sets a deadline and closes the connection.
func (t *Transport) Visit(ctx context.Context, a netip.AddrPort, check func(peer.ID) error) (net.Conn, peer.ID, error) {
	conn, id, err := t.dialTLS(ctx, "", a, visitALPN)
	if err == nil {
		if err = check(id); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		return nil, peer.ID{}, fmt.Errorf("visit %s: %w", a, err)
	}
	return conn, id, nil
}
