package main

import (
	"fmt"
	"strings"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// joinVerb is `buildmesh join`.
type joinVerb struct {
	Code []string `arg:"" help:"The code that buildmesh invite printed on a node of the mesh."`
}

// Run joins and prints the words to compare.
func (j *joinVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Mesh.Join(v.ctx, &controlv1.JoinRequest{Code: strings.Join(j.Code, "")})
	if err != nil {
		return plain(err)
	}
	_, err = fmt.Fprintf(v.out, "joined mesh %s, admitted by %s\nWords that %s's `buildmesh members` must show for this node: %s\n",
		answer.Mesh, answer.Steward, answer.Steward, answer.Phrase)
	return err
}
