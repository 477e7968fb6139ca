package scenarios

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// What testnet/rogue says when the others know it, and what it calls its version.
const (
	rogueReady   = "ready"
	rogueVersion = "rogue"
)

// deeds are the roles that do something by themselves, tell of it and end.
var deeds = []string{"snoop"}

// play puts testnet/rogue in the seat of a node, `mallory plays swapper`. It returns when every node that runs knows the
// rogue, or, when the role is one of a deed, what that has to tell.
func (w *World) play(ctx context.Context, step scenario.Step) (said []string, err error) {
	n, err := w.node(step.Names[0])
	if err != nil {
		return nil, err
	}
	w.id(ctx, n) // while it can be asked
	if n.Running() {
		if err := n.Stop(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, attackLimit)
	defer cancel()
	began := time.Now()
	said, err = w.seat(ctx, n, step.Rest)
	if err == nil && !slices.Contains(deeds, step.Rest) {
		err = w.met(ctx, n)
	}
	w.Log("%s: took %v", step.Text, time.Since(began).Round(10*time.Millisecond))
	return said, err
}

// seat starts a rogue and waits until it says that it is ready, or what it has to tell of its deed. One that takes longer
// than ctx is killed.
func (w *World) seat(ctx context.Context, n *lab.Node, role string) (said []string, err error) {
	complaints, err := os.Create(filepath.Join(n.Dir(), "rogue"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = complaints.Close() }()
	cmd := exec.Command(w.Rogue, role, n.Dir())
	cmd.Stderr = complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.Begin(cmd); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == rogueReady {
			w.rogues = append(w.rogues, cmd)
			return said, nil
		}
		said = append(said, lines.Text())
	}
	if failed := cmd.Wait(); failed != nil || len(said) == 0 {
		text, _ := os.ReadFile(complaints.Name())
		return nil, fmt.Errorf("%s: %w: %s", role, errors.Join(ctx.Err(), failed), text)
	}
	return said, nil
}

// met waits until every node that runs has heard what a rogue says of itself.
func (w *World) met(ctx context.Context, rogue *lab.Node) error {
	observers, err := w.nodes([]string{scenario.Everyone})
	if err != nil {
		return err
	}
	_, err = lab.Eventually(ctx, attackLimit, func(ctx context.Context) error {
		for _, n := range observers {
			if err := w.hears(ctx, n, rogue.Name); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// hears reports whether a node sees a rogue alive and knows what it says of itself.
func (w *World) hears(ctx context.Context, n *lab.Node, rogue string) error {
	client, err := n.Control(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Peers.Peers(ctx, &controlv1.PeersRequest{})
	if err != nil {
		return err
	}
	for _, p := range answer.Peers {
		if p.Name == rogue && p.State == "alive" && p.GetFacts().GetVersion() == rogueVersion {
			return nil
		}
	}
	return fmt.Errorf("%s does not know of %s yet", n.Name, rogue)
}
