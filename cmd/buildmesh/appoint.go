package main

import (
	"fmt"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// appointVerb is `buildmesh appoint`.
type appointVerb struct {
	Peer    string `arg:"" help:"Name, peer id or end of a peer id, as buildmesh members shows it."`
	RootKey string `placeholder:"FILE" help:"The mesh's root key (default: in the node's state directory)."`
}

// Run makes a member a steward.
func (a *appointVerb) Run(v *verbContext) error {
	path, err := wholePath(a.RootKey)
	if err != nil {
		return err
	}
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Mesh.Appoint(v.ctx, &controlv1.AppointRequest{Peer: a.Peer, RootKey: path})
	if err != nil {
		return plain(err)
	}
	_, err = fmt.Fprintf(v.out, "%s (%s) is a steward now: it can invite others and renew certificates\n", dash(answer.Name), answer.PeerId)
	return err
}
