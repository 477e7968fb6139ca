package main

import (
	"context"
	"errors"
	"fmt"
)

// testnetDemoVerb is `buildmesh testnet demo`.
type testnetDemoVerb struct {
	testnetSize
}

// Run shows a mesh losing a node and getting it back.
func (d *testnetDemoVerb) Run(v *verbContext) error {
	if d.Nodes < 3 {
		return usageError{errors.New("--nodes: a demonstration takes at least 3")}
	}
	return v.withTestnet(d.testnetSize, func(ctx context.Context, t *testnet) error {
		victim := t.nodes[len(t.nodes)/2]
		if err := t.show(ctx); err != nil {
			return err
		}
		fmt.Fprintf(v.out, "\n$ kill -9 %d    # node %s\n", victim.process.Process.Pid, victim.name)
		victim.kill()
		took, err := t.agree(ctx, []*testnetNode{victim}, "dead")
		if err != nil {
			return err
		}
		fmt.Fprintf(v.out, "all others know after %.1f s that %s is dead\n", took.Seconds(), victim.name)
		if err := t.show(ctx); err != nil {
			return err
		}
		fmt.Fprintf(v.out, "\n$ buildmesh --config %s up    # node %s again\n", victim.file, victim.name)
		if err := victim.start(ctx); err != nil {
			return err
		}
		if took, err = t.agree(ctx, t.nodes, "alive"); err != nil {
			return err
		}
		fmt.Fprintf(v.out, "%.1f s after it answers, all see each other again\n", took.Seconds())
		return t.show(ctx)
	})
}

// show prints how the first node sees the others.
func (t *testnet) show(ctx context.Context) error {
	n := t.nodes[0]
	said, err := n.verb(ctx, "peers")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.v.out, "\n$ buildmesh --config %s peers    # as node %s sees it\n%s", n.file, n.name, said)
	return err
}
