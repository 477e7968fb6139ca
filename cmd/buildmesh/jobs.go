package main

import (
	"fmt"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// jobsVerb is `buildmesh jobs`.
type jobsVerb struct {
	Hermetic bool `help:"Count also machines with other tools: for actions that bring their own root, such as BuildStream's."`
	Explain  bool `help:"Print what each machine adds, too."`
}

// Run prints the number for --jobs, and nothing else unless asked to.
func (j *jobsVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Journal.Jobs(v.ctx, &controlv1.JobsRequest{})
	if err != nil {
		return plain(err)
	}
	number := answer.Jobs
	if j.Hermetic {
		number = answer.Hermetic
	}
	if _, err := fmt.Fprintln(v.out, number); err != nil || !j.Explain {
		return err
	}
	return v.table(jobsRows(answer, j.Hermetic))
}

// jobsRows is what each machine adds.
func jobsRows(a *controlv1.JobsResponse, hermetic bool) []string {
	rows := []string{"MACHINE\tCORES"}
	for _, m := range a.Machines {
		note := m.Excluded
		if hermetic && m.Hermetic {
			note = ""
		}
		row := m.Name + "\t" + human.Cores(m.Cores)
		if note != "" {
			row += "\tnot counted: " + note
		}
		rows = append(rows, row)
	}
	return append(rows, "one action for each core, and a quarter more, at least two, that are on their way")
}
