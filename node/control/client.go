package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// ErrNoNode means that no node answers on the socket.
var ErrNoNode = errors.New("no node answers")

// dialTimeout bounds the wait for a node that accepts but does not speak.
const dialTimeout = 5 * time.Second

// Client asks a running node.
type Client struct {
	controlv1.ControlClient
	Mesh    controlv1.MeshClient
	Lending controlv1.LendingClient
	Archive controlv1.ArchiveClient
	Peers   controlv1.PeersClient
	Content controlv1.ContentClient
	Journal controlv1.JournalClient
	conn    *grpc.ClientConn
}

// Dial connects to the node that listens on the unix socket at path. Errors: ErrNoNode.
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	probe, err := dialer(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("%w on %s", ErrNoNode, path)
	}
	probe.Close()
	conn, err := grpc.NewClient("passthrough:///control",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dialer))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	return &Client{controlv1.NewControlClient(conn), controlv1.NewMeshClient(conn), controlv1.NewLendingClient(conn), controlv1.NewArchiveClient(conn), controlv1.NewPeersClient(conn), controlv1.NewContentClient(conn), controlv1.NewJournalClient(conn), conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }
