package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/node"
	"github.com/buildmesh/buildmesh/node/control"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// doctorVerb is `buildmesh doctor`.
type doctorVerb struct{}

// Run prints every check, what is well first; it ends with errFound when one failed. The node is asked when one runs,
// else the checks run here.
func (doctorVerb) Run(v *verbContext) error {
	checks, err := v.checks()
	if err != nil {
		return err
	}
	// What is to be mended comes last, the worst at the end, where the eye is; causes stay before consequences.
	slices.SortStableFunc(checks, func(a, b *controlv1.Check) int { return int(a.Verdict) - int(b.Verdict) })
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	found := 0
	for _, c := range checks {
		mark := "ok     "
		switch c.Verdict {
		case controlv1.Check_VERDICT_FAILED:
			mark = "FAILED "
			found++
		case controlv1.Check_VERDICT_WARNING:
			mark = "warning"
		}
		fmt.Fprintf(v.out, "%s  %-*s  %s\n", mark, width, c.Name, c.Finding)
		if c.Fix != "" {
			fmt.Fprintf(v.out, "%s  mend it: %s\n", strings.Repeat(" ", len(mark)+2+width), c.Fix)
		}
	}
	if found > 0 {
		return errFound
	}
	return nil
}

// checks asks the running node or, without one, this machine.
func (v *verbContext) checks() ([]*controlv1.Check, error) {
	client, err := v.dial()
	if errors.Is(err, control.ErrNoNode) {
		c, err := v.load()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(v.out, "no node runs; these are the checks one would start with\n")
		return node.Doctor(v.ctx, c), nil
	}
	if err != nil {
		return nil, err
	}
	defer client.Close()
	answer, err := client.Doctor(v.ctx, &controlv1.DoctorRequest{})
	if err != nil {
		return nil, plain(err)
	}
	return answer.Checks, nil
}
