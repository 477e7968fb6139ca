package scenarios

import (
	"context"
	"fmt"
	"strings"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// Mesh makes a mesh in an empty lab: so many nodes, n1 and so on, with settings like "exec.cores=2", all joined to n1.
// It returns when all see each other; log is told how long that took.
func Mesh(ctx context.Context, l *lab.Lab, count int, settings string, log func(string, ...any)) error {
	sentences := []string{"# A mesh.", "", fmt.Sprintf("nodes n1..n%d", count), fmt.Sprintf("start n1..n%d", count)}
	if settings != "" {
		sentences[2] += " with " + settings
	}
	if count > 1 {
		sentences = append(sentences, fmt.Sprintf("n2..n%d join n1", count), "within 60s all see each other")
	}
	script, err := scenario.Parse(strings.Join(sentences, "\n"))
	if err != nil {
		return err
	}
	world := New(l)
	world.Log = log
	_, err = scenario.Play(ctx, script, world)
	return err
}
