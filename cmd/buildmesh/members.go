package main

import (
	"fmt"
	"time"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// membersVerb is `buildmesh members`.
type membersVerb struct{}

// Run prints the mesh and who is in it.
func (membersVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Mesh.Members(v.ctx, &controlv1.MembersRequest{})
	if err != nil {
		return plain(err)
	}
	rows := []string{"NAME\tPEER\tSITE\tROLE\tCERTIFICATE\tCONNECTED\tWORDS BOTH SIDES SHOW"}
	for i, m := range answer.Members {
		role, connected := "member", "no"
		if m.Steward {
			role = "steward"
		}
		if m.Connected {
			connected = "yes"
		}
		if i == 0 {
			connected = "this node"
		}
		left := "holds " + human.Age(time.Until(m.Expires.AsTime()))
		if !time.Now().Before(m.Expires.AsTime()) {
			left = "EXPIRED"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", m.Name, short(m.PeerId), dash(m.Site), role, left, connected, dash(m.Phrase)))
	}
	return v.table([]string{
		fmt.Sprintf("mesh\t%s", answer.Mesh),
		fmt.Sprintf("root\t%s, charter %d", answer.Root, answer.Epoch),
		fmt.Sprintf("listens\t%s", answer.Address),
	}, rows)
}

// short is the end of a peer id, which is enough to name it.
func short(id string) string { return id[max(0, len(id)-8):] }
