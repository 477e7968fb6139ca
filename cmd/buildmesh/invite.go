package main

import (
	"fmt"
	"strings"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// inviteVerb is `buildmesh invite`.
type inviteVerb struct {
	Uses    int           `default:"1" help:"How many nodes may join with the code (${default})."`
	Expires time.Duration `default:"1h" help:"How long the code is good, such as 30m or 24h (${default})."`
}

// Run prints a code.
func (i *inviteVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Mesh.Invite(v.ctx, &controlv1.InviteRequest{Uses: int64(i.Uses), Lifetime: durationpb.New(i.Expires)})
	if err != nil {
		return plain(err)
	}
	nodes := "1 node"
	if i.Uses > 1 {
		nodes = fmt.Sprintf("%d nodes", i.Uses)
	}
	_, err = fmt.Fprintf(v.out, "buildmesh join %s\n\nGood for %s to join mesh %s until %s, while this node runs and can be reached at %s.\n"+
		"Whoever has the code can join. Then `buildmesh members` shows the same words on both sides.\n",
		answer.Code, nodes, answer.Mesh, answer.Expires.AsTime().Local().Format("Mon 15:04"), strings.Join(answer.Addresses, ", "))
	return err
}
