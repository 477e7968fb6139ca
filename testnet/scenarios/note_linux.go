package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// note is what a node takes of its machine at a moment.
type note struct {
	memory     float64 // bytes of the heap in use, as the last collection found
	goroutines float64
	files      float64 // open file descriptors
}

// What a node may take more than was noted and still be as noted: the collector's own pace and the mesh's own traffic.
const (
	moreMemory     = 8 << 20
	moreGoroutines = 12
	moreFiles      = 12
)

// take reads a note off a node's metrics.
func take(ctx context.Context, n *lab.Node) (note, error) {
	var out note
	for name, field := range map[string]*float64{
		"go_memstats_heap_inuse_bytes ": &out.memory, "go_goroutines ": &out.goroutines, "process_open_fds ": &out.files,
	} {
		value, err := n.Metrics(ctx, name)
		if err != nil {
			return out, err
		}
		*field = value
	}
	return out, nil
}

// note notes what nodes take at rest.
func (w *World) note(ctx context.Context, step scenario.Step) ([]string, error) {
	nodes, err := w.nodes(step.Names)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if w.notes[n.Name], err = atRest(ctx, n); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// atRest is what a node takes when for a while it has taken no more goroutines or files: members that have just met are
// still making connections, which are no attack's doing.
func atRest(ctx context.Context, n *lab.Node) (most note, err error) {
	const while, limit = 3 * time.Second, 30 * time.Second
	grown := time.Now()
	_, err = lab.Eventually(ctx, limit, func(ctx context.Context) error {
		now, err := take(ctx, n)
		if err != nil {
			return err
		}
		if now.goroutines > most.goroutines || now.files > most.files {
			grown = time.Now()
		}
		most = note{now.memory, max(most.goroutines, now.goroutines), max(most.files, now.files)}
		if time.Since(grown) < while {
			return fmt.Errorf("%s takes more and more: %.0f goroutines, %.0f files", n.Name, most.goroutines, most.files)
		}
		return nil
	})
	return most, err
}

// asNoted waits until nodes take about what was noted. The runtime collects garbage at least every two minutes; a
// node at rest allocates so little that the bound of the sentence has to be longer than that.
func (w *World) asNoted(ctx context.Context, step scenario.Step) ([]string, error) {
	nodes, err := w.nodes(step.Names)
	if err != nil {
		return nil, err
	}
	return nil, w.wait(ctx, step, func(ctx context.Context) error {
		for _, n := range nodes {
			before, known := w.notes[n.Name]
			if !known {
				return fmt.Errorf("nothing was noted of %s", n.Name)
			}
			now, err := take(ctx, n)
			if err != nil {
				return err
			}
			if now.memory > before.memory+moreMemory || now.goroutines > before.goroutines+moreGoroutines ||
				now.files > before.files+moreFiles {
				return fmt.Errorf("%s takes %.1f MiB, %.0f goroutines, %.0f files; noted %.1f MiB, %.0f, %.0f", n.Name,
					now.memory/(1<<20), now.goroutines, now.files, before.memory/(1<<20), before.goroutines, before.files)
			}
			w.Log("%s takes %.1f MiB, %.0f goroutines, %.0f files; noted were %.1f MiB, %.0f, %.0f", n.Name,
				now.memory/(1<<20), now.goroutines, now.files, before.memory/(1<<20), before.goroutines, before.files)
		}
		return nil
	})
}

// takes checks the most memory that nodes have had.
func (w *World) takes(_ context.Context, step scenario.Step) ([]string, error) {
	bound, err := config.ParseSize(step.Rest)
	if err != nil {
		return nil, err
	}
	nodes, err := w.nodes(step.Names)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		peak, err := n.Peak()
		if err != nil {
			return nil, err
		}
		w.Log("%s has taken %d MiB", n.Name, peak>>20)
		if peak >= int64(bound) {
			return nil, fmt.Errorf("%s has taken %d MiB", n.Name, peak>>20)
		}
	}
	return nil, nil
}
