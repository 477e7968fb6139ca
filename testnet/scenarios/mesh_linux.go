package scenarios

import (
	"context"
	"fmt"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// Mesh makes a mesh in an empty lab: so many nodes on equal machines, n1 and so on, all joined to n1. It returns when all
// see each other; log is told how long that took.
func Mesh(ctx context.Context, l *lab.Lab, count int, machine lab.Machine, log func(string, ...any)) error {
	for i := range count {
		if _, err := l.Add(fmt.Sprintf("n%d", i+1), machine); err != nil {
			return err
		}
	}
	return Together(ctx, l, log)
}

// Together starts a node on every machine of a lab, where none runs yet, and joins all to the first one. It returns when
// all see each other; log is told how long that took.
func Together(ctx context.Context, l *lab.Lab, log func(string, ...any)) error {
	world := New(l)
	world.Log = log
	var names []string
	for _, n := range l.Nodes() {
		names = append(names, n.Name)
	}
	if err := world.together(names, func(n *lab.Node) error { return n.Start(ctx) }); err != nil || len(names) < 2 {
		return err
	}
	if err := world.admit(ctx, names[0], names[1:]); err != nil {
		return err
	}
	script, err := scenario.Parse("# A mesh.\n\nwithin 60s all see each other\n")
	if err != nil {
		return err
	}
	_, err = scenario.Play(ctx, script, world)
	return err
}

// Admit has one node of a lab invite others, and those join.
func Admit(ctx context.Context, l *lab.Lab, by string, names ...string) error {
	return New(l).admit(ctx, by, names)
}
