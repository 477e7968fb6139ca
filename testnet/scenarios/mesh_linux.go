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
	world := New(l)
	world.Log = log
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("n%d", i+1))
		if _, err := l.Add(names[i], machine); err != nil {
			return err
		}
	}
	if err := world.together(names, func(n *lab.Node) error { return n.Start(ctx) }); err != nil || count < 2 {
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
