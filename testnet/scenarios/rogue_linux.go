package scenarios

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// What testnet/rogue says when the others know it, and what it calls its version.
const (
	rogueReady   = "ready\n"
	rogueVersion = "rogue"
)

// play puts testnet/rogue in the seat of a node, `mallory plays swapper`, and returns when every node that runs knows it.
func (w *World) play(ctx context.Context, step scenario.Step) ([]string, error) {
	n := w.Lab.Node(step.Names[0])
	if n == nil {
		return nil, fmt.Errorf("there is no node %s", step.Names[0])
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
	if err := w.seat(ctx, n, step.Rest); err != nil {
		return nil, err
	}
	err := w.met(ctx, n)
	w.Log("%s: took %v", step.Text, time.Since(began).Round(10*time.Millisecond))
	return nil, err
}

// seat starts a rogue and waits until it says that it is ready. One that takes longer than ctx is killed.
func (w *World) seat(ctx context.Context, n *lab.Node, role string) error {
	complaints, err := os.Create(filepath.Join(n.Dir(), "rogue"))
	if err != nil {
		return err
	}
	defer func() { _ = complaints.Close() }()
	cmd := exec.Command(w.Rogue, role, n.Dir())
	cmd.Stderr = complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.Begin(cmd); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if line, _ := bufio.NewReader(out).ReadString('\n'); line == rogueReady {
		w.rogues = append(w.rogues, cmd)
		return nil
	}
	failed := cmd.Wait()
	text, _ := os.ReadFile(complaints.Name())
	return fmt.Errorf("%s: %w: %s", role, errors.Join(ctx.Err(), failed), text)
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
