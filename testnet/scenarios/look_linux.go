package scenarios

import (
	"context"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/buildmesh/buildmesh/testnet/lab"
)

// look asks a node whom it knows and how it sees them.
func look(ctx context.Context, n *lab.Node) (view, error) {
	client, err := n.Control(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	answer, err := client.Peers.Peers(ctx, &controlv1.PeersRequest{})
	if err != nil {
		return nil, err
	}
	seen := view{}
	for _, p := range answer.Peers {
		seen[p.Name] = sight{state: p.State, heard: p.Facts != nil}
	}
	return seen, nil
}
