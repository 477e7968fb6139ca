package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// absent is the state of a peer that is in nobody's roster.
const absent = "absent"

// few is up to how many nodes a transcript lists what each of them sees.
const few = 8

// mesh makes machines, starts their nodes and joins them all to the first one.
func (w *World) mesh(ctx context.Context, step scenario.Step) ([]string, error) {
	if _, err := w.add(ctx, step); err != nil {
		return nil, err
	}
	if err := w.together(step.Names, func(n *lab.Node) error { return n.Start(ctx) }); err != nil {
		return nil, err
	}
	if len(step.Names) > 1 {
		if err := w.admit(ctx, step.Names[0], step.Names[1:]); err != nil {
			return nil, err
		}
	}
	step.Duration = 30 * time.Second
	_, err := w.withinAll(ctx, step)
	return nil, err
}

// join invites with one node and joins with others.
func (w *World) join(ctx context.Context, step scenario.Step) ([]string, error) {
	return nil, w.admit(ctx, step.Others[0], step.Names)
}

// admit has one node invite the others and those join.
func (w *World) admit(ctx context.Context, by string, names []string) error {
	n, err := w.node(by)
	if err != nil {
		return err
	}
	out, err := n.Run(ctx, "invite", "--uses", fmt.Sprint(len(names)))
	if err != nil {
		return fmt.Errorf("%s invites: %w: %s", by, err, out)
	}
	code, err := codeIn(out)
	if err != nil {
		return err
	}
	return w.together(names, func(n *lab.Node) error {
		if out, err := n.Run(ctx, "join", code); err != nil {
			return fmt.Errorf("%s joins: %w: %s", n.Name, err, out)
		}
		return nil
	})
}

// keep runs a verb and keeps the code it prints.
func (w *World) keep(ctx context.Context, step scenario.Step) ([]string, error) {
	n, err := w.node(step.Names[0])
	if err != nil {
		return nil, err
	}
	out, err := n.Run(ctx, w.words(ctx, step.Rest)...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	w.codes[step.Word], err = codeIn(out)
	return nil, err
}

// view is how one node sees the others, by name.
type view map[string]sight

// sight is how one node sees another.
type sight struct {
	state string
	heard bool // facts came from it, so a connection between them works
}

// state is how a name is seen.
func (v view) state(name string) string {
	if seen, found := v[name]; found {
		return seen.state
	}
	return absent
}

// views asks all observers at once.
func (w *World) views(ctx context.Context, observers []*lab.Node) ([]view, error) {
	var (
		wait  sync.WaitGroup
		out   = make([]view, len(observers))
		wrong = make([]error, len(observers))
		gate  = make(chan struct{}, atOnce)
	)
	for i, n := range observers {
		gate <- struct{}{}
		wait.Go(func() {
			defer func() { <-gate }()
			if out[i], wrong[i] = look(ctx, n); wrong[i] != nil {
				wrong[i] = fmt.Errorf("%s: %w", n.Name, wrong[i])
			}
		})
	}
	wait.Wait()
	return out, errors.Join(wrong...)
}

// unlike tells which observers do not see every subject in the state.
func unlike(observers []*lab.Node, views []view, subjects []string, state string) error {
	var wrong []string
	for i, n := range observers {
		for _, subject := range subjects {
			if seen := views[i].state(subject); subject != n.Name && seen != state {
				wrong = append(wrong, fmt.Sprintf("%s sees %s %s", n.Name, subject, seen))
			}
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	if more := len(wrong) - few; more > 0 {
		wrong = append(wrong[:few], fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(wrong, ", "))
}

// subjects are the names a sentence speaks of.
func (w *World) subjects(names []string) ([]string, error) {
	nodes, err := w.nodes(names)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out, nil
}

// within waits until the observers see the subjects in the state.
func (w *World) within(ctx context.Context, step scenario.Step) ([]string, error) {
	observers, err := w.nodes(step.Names)
	if err != nil {
		return nil, err
	}
	subjects, err := w.subjects(step.Others)
	if err != nil {
		return nil, err
	}
	// A dead node does not look at others.
	observers = slices.DeleteFunc(observers, func(n *lab.Node) bool { return !n.Running() })
	var views []view
	err = w.wait(ctx, step, func(ctx context.Context) error {
		if views, err = w.views(ctx, observers); err != nil {
			return err
		}
		return unlike(observers, views, subjects, step.State)
	})
	if err != nil {
		return nil, err
	}
	return describe(observers, views, subjects, step.State), nil
}

// describe prints what observers see: everything each sees when they are few, else only how many agree.
func describe(observers []*lab.Node, views []view, subjects []string, state string) []string {
	if len(observers) > few {
		return []string{fmt.Sprintf("%d nodes see %d %s", len(observers), len(subjects), state)}
	}
	var out []string
	for i, n := range observers {
		var parts []string
		for _, subject := range subjects {
			if subject != n.Name {
				parts = append(parts, subject+" "+views[i].state(subject))
			}
		}
		slices.Sort(parts)
		out = append(out, n.Name+": "+strings.Join(parts, ", "))
	}
	return out
}

// withinAll waits until all nodes that run and are awake see each other alive and have heard each other's facts.
func (w *World) withinAll(ctx context.Context, step scenario.Step) ([]string, error) {
	all, err := w.nodes([]string{scenario.Everyone})
	if err != nil {
		return nil, err
	}
	return nil, w.wait(ctx, step, func(ctx context.Context) error {
		views, err := w.views(ctx, all)
		if err != nil {
			return err
		}
		var names []string
		for _, n := range all {
			names = append(names, n.Name)
		}
		return errors.Join(unlike(all, views, names, "alive"), unheard(all, views))
	})
}

// unheard tells which observers have not heard from one of the others.
func unheard(observers []*lab.Node, views []view) error {
	var wrong []error
	for i, n := range observers {
		for _, other := range observers {
			if other != n && !views[i][other.Name].heard {
				wrong = append(wrong, fmt.Errorf("%s has not heard from %s", n.Name, other.Name))
			}
		}
	}
	return errors.Join(wrong[:min(few, len(wrong))]...)
}

// throughout looks all the time whether the observers see the subjects in the state.
func (w *World) throughout(ctx context.Context, step scenario.Step) ([]string, error) {
	observers, err := w.nodes(step.Names)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(step.Duration); ; {
		views, err := w.views(ctx, observers)
		if err == nil {
			err = unlike(observers, views, step.Others, step.State)
		}
		if err != nil || time.Now().After(end) {
			return nil, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
