package scenarios

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// attackLimit is what an adversary may take its time for; it ends by itself before.
const attackLimit = 3 * time.Minute

// attack runs testnet/stranger on a machine: `mallory attacks ana with hellos 8982 10000` is an attack, a port, a count;
// `as member` behind it gives the adversary what the machine's own node keeps, which does not run any more.
func (w *World) attack(ctx context.Context, step scenario.Step) ([]string, error) {
	from, victim := w.Lab.Node(step.Names[0]), w.Lab.Node(step.Others[0])
	words := strings.Fields(step.Rest)
	member := strings.HasSuffix(step.Rest, " as member")
	if from == nil || victim == nil || len(words) != 3 && !(member && len(words) == 5) {
		return nil, fmt.Errorf("want NAME attacks NAME with ATTACK PORT COUNT [as member]")
	}
	args := []string{words[0], fmt.Sprintf("%s:%s", victim.Address(), words[1]), words[2]}
	if member {
		args = append(args, from.Dir())
	}
	ctx, cancel := context.WithTimeout(ctx, attackLimit)
	defer cancel()
	begun := time.Now()
	out, err := from.Output(exec.CommandContext(ctx, w.Stranger, args...))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	w.Log("%s: took %v", step.Text, time.Since(begun).Round(10*time.Millisecond))
	return strings.Split(strings.TrimSpace(out), "\n"), nil
}
