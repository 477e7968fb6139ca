package main

import (
	"fmt"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// leaveVerb is `buildmesh leave`.
type leaveVerb struct{}

// Run leaves the mesh.
func (leaveVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Mesh.Leave(v.ctx, &controlv1.LeaveRequest{})
	if err != nil {
		return plain(err)
	}
	_, err = fmt.Fprintf(v.out, "left mesh %s; this node is alone in mesh %s now\n", answer.Left, answer.Mesh)
	return err
}
