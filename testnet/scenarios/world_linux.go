package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// World plays sentences in a lab.
type World struct {
	Lab      *lab.Lab
	Stranger string               // the program of testnet/stranger
	Rogue    string               // the program of testnet/rogue
	Patience float64              // by which every bound of a wait is multiplied
	Log      func(string, ...any) // told how long waits took

	codes  map[string]string // kept by their word
	notes  map[string]note   // by node
	ids    map[string]string // peer ids by node
	rogues []*exec.Cmd       // that run
	begun  []func()          // end what was begun
}

// New is a world without machines.
func New(l *lab.Lab) *World {
	return &World{Lab: l, Patience: 1, Log: func(string, ...any) {},
		codes: map[string]string{}, notes: map[string]note{}, ids: map[string]string{}}
}

// Close ends the rogues and what was begun; the lab's nodes are the lab's.
func (w *World) Close() {
	for _, end := range w.begun {
		end()
	}
	for _, cmd := range w.rogues {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// Do does what a sentence says and returns what it prints.
func (w *World) Do(ctx context.Context, step scenario.Step) ([]string, error) {
	do := map[scenario.Phrase]func(context.Context, scenario.Step) ([]string, error){
		scenario.Nodes: w.add, scenario.NodeAt: w.add, scenario.NodesWith: w.add,
		scenario.Mesh: w.mesh, scenario.Join: w.join,
		scenario.Run: w.run, scenario.Keep: w.keep, scenario.WithinPrinted: w.withinPrinted,
		scenario.Within: w.within, scenario.WithinAll: w.withinAll, scenario.Throughout: w.throughout,
		scenario.Note: w.note, scenario.AsNoted: w.asNoted, scenario.Takes: w.takes, scenario.Attack: w.attack,
		scenario.Plays: w.play, scenario.Build: w.build, scenario.WithinBuilds: w.withinBuilds, scenario.Begin: w.begin,
		scenario.Has: w.has, scenario.Lacks: w.lacks, scenario.WithinLacks: w.withinLacks, scenario.Rots: w.rots,
		scenario.WithinFinds: w.withinFinds, scenario.WithinLeft: w.withinLeft,
	}[step.Phrase]
	if do != nil {
		return do(ctx, step)
	}
	return nil, w.act(ctx, step)
}

// act does what prints nothing.
func (w *World) act(ctx context.Context, step scenario.Step) error {
	switch step.Phrase {
	case scenario.Start:
		return w.together(step.Names, func(n *lab.Node) error { return n.Start(ctx) })
	case scenario.Stop:
		return w.together(step.Names, (*lab.Node).Stop)
	case scenario.Kill:
		return w.together(step.Names, (*lab.Node).Kill)
	case scenario.Sleep:
		return w.together(step.Names, (*lab.Node).Sleep)
	case scenario.Wake:
		return w.together(step.Names, (*lab.Node).Wake)
	case scenario.Unplug:
		return w.together(step.Names, (*lab.Node).Unplug)
	case scenario.Plug:
		return w.together(step.Names, (*lab.Node).Plug)
	case scenario.Move:
		return w.together(step.Names, func(n *lab.Node) error { return n.Move(step.Address) })
	case scenario.Partition:
		return w.Lab.Partition(step.Groups...)
	case scenario.Slow:
		return w.Lab.Slow(lab.Link{Delay: step.Duration}, step.Groups...)
	case scenario.Lose:
		return w.Lab.Lose(step.Names[0], step.Others[0])
	case scenario.Heal:
		return w.Lab.Heal()
	case scenario.Wait:
		return pass(ctx, step.Duration)
	}
	return errors.New("no lab can do this")
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// node is the node of that name.
func (w *World) node(name string) (*lab.Node, error) {
	if n := w.Lab.Node(name); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("there is no node %s", name)
}

// nodes are the nodes of those names; everyone are those that run and are awake.
func (w *World) nodes(names []string) ([]*lab.Node, error) {
	if slices.Contains(names, scenario.Everyone) {
		return slices.DeleteFunc(w.Lab.Running(), (*lab.Node).Asleep), nil
	}
	var out []*lab.Node
	for _, name := range names {
		n, err := w.node(name)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// atOnce is how many nodes something is done to at the same time.
const atOnce = 8

// together does something to all nodes, several at a time, and returns every error.
func (w *World) together(names []string, do func(*lab.Node) error) error {
	nodes, err := w.nodes(names)
	if err != nil {
		return err
	}
	var (
		wait  sync.WaitGroup
		gate  = make(chan struct{}, atOnce)
		wrong = make([]error, len(nodes))
	)
	for i, n := range nodes {
		gate <- struct{}{}
		wait.Go(func() { defer func() { <-gate }(); wrong[i] = do(n) })
	}
	wait.Wait()
	return errors.Join(wrong...)
}

// add makes machines.
func (w *World) add(_ context.Context, step scenario.Step) ([]string, error) {
	machine := lab.Machine{Address: step.Address}
	for pair := range strings.FieldsSeq(step.Rest) {
		key, value, found := strings.Cut(pair, "=")
		if !found && len(machine.Settings) > 0 { // a value of several words goes on
			machine.Settings[len(machine.Settings)-1] += " " + pair
			continue
		}
		if !found {
			return nil, fmt.Errorf("%s is no KEY=VALUE", pair)
		}
		machine.Settings = append(machine.Settings,
			"BUILDMESH_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))+"="+value)
	}
	for _, name := range step.Names {
		if _, err := w.Lab.Add(name, machine); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// run runs a verb on a node and prints what it prints, and with which status it failed.
func (w *World) run(ctx context.Context, step scenario.Step) ([]string, error) {
	n, err := w.node(step.Names[0])
	if err != nil {
		return nil, err
	}
	text, only, _ := strings.Cut(step.Rest, " | ")
	out, err := n.Run(ctx, w.words(ctx, text)...)
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return nil, err
	}
	lines := w.tidy(ctx, out)
	if only != "" {
		lines = slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, only) })
	}
	if failed != nil {
		lines = append(lines, fmt.Sprintf("exit status %d", failed.ExitCode()))
	}
	return lines, nil
}

// words are the words of a command, with the codes that were kept and peer ids put in.
func (w *World) words(ctx context.Context, text string) []string {
	words := strings.Fields(text)
	for i, word := range words {
		name, found := strings.CutPrefix(word, "$")
		if !found {
			continue
		}
		if code, known := w.codes[name]; known {
			words[i] = code
		} else if n := w.Lab.Node(name); n != nil {
			words[i] = w.id(ctx, n)
		}
	}
	return words
}

// withinPrinted runs a verb until it prints the transcript.
func (w *World) withinPrinted(ctx context.Context, step scenario.Step) (said []string, err error) {
	err = w.wait(ctx, step, func(ctx context.Context) error {
		said, err = w.says(ctx, step)
		return err
	})
	return said, err
}

// says runs a verb and reports when it prints something else than the transcript, if there is one.
func (w *World) says(ctx context.Context, step scenario.Step) (said []string, err error) {
	said, err = w.run(ctx, step)
	if err == nil && len(step.Want) > 0 && !scenario.Same(said, step.Want) { // with -update there may be nothing to wait for
		err = fmt.Errorf("it prints %q", said)
	}
	return said, err
}

// withinLeft waits until nothing of actions and leases is left on the nodes that run.
func (w *World) withinLeft(ctx context.Context, step scenario.Step) ([]string, error) {
	return nil, w.wait(ctx, step, func(ctx context.Context) error { return w.Lab.Left(ctx) })
}

// wait waits until check holds, at most as long as the sentence says times the patience, and tells how long it took.
func (w *World) wait(ctx context.Context, step scenario.Step, check func(context.Context) error) error {
	limit := time.Duration(float64(step.Duration) * w.Patience)
	took, err := lab.Eventually(ctx, limit, check)
	if err == nil {
		w.Log("%s: took %v", step.Text, took.Round(10*time.Millisecond))
	}
	return err
}
