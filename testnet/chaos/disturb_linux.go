package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenarios"
)

// Office is a mesh in a lab that a plan is carried out on.
type Office struct {
	Lab    *lab.Lab
	Member string // a node that no plan disturbs: it pauses nobody, and invites and revokes the others
	Log    func(string, ...any)

	wiring sync.Mutex // held while the wiring is not as it should be
}

// slow is the wire of the event Slow: a bad radio.
var slow = lab.Link{Delay: 80 * time.Millisecond, Loss: 0.02, Rate: 1 << 20}

// Carry carries out a plan and heals everything; when ctx ends, what is left of the plan is only healed. Nodes are
// disturbed side by side, the events of one node one after the other.
func (o *Office) Carry(ctx context.Context, plan Plan) error {
	begun := time.Now()
	events := map[string]Plan{}
	for _, e := range plan {
		events[e.Node] = append(events[e.Node], e)
	}
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex // guards wrong
		wrong []error
	)
	for name, own := range events {
		wait.Go(func() {
			for _, e := range own {
				if !sleep(ctx, time.Until(begun.Add(e.At))) {
					return
				}
				if err := o.carry(ctx, o.Lab.Node(name), e); err != nil {
					mu.Lock()
					wrong = append(wrong, fmt.Errorf("%s: %w", e, err))
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	return errors.Join(wrong...)
}

// sleep lets time pass; false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// carry does one event and heals it. The healing does not end with ctx.
func (o *Office) carry(ctx context.Context, n *lab.Node, e Event) error {
	o.Log("%s", e)
	if e.Kind.network() {
		o.wiring.Lock()
		defer o.wiring.Unlock()
	}
	if err := o.begin(n, e.Kind); err != nil {
		return err
	}
	sleep(ctx, e.For)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	return o.heal(ctx, n, e.Kind)
}

// begin disturbs a node.
func (o *Office) begin(n *lab.Node, kind Kind) error {
	switch kind {
	case Kill:
		return n.Kill()
	case Sleep:
		return n.Sleep()
	case Unplug:
		return n.Unplug()
	case Partition:
		return o.Lab.Partition([]string{n.Name})
	case Slow:
		return o.Lab.Slow(slow, []string{n.Name})
	case Move:
		return n.Move(netip.Addr{})
	case Pause:
		return said(n.Run(context.Background(), "pause"))
	case Fill:
		return n.Fill()
	case Revoke:
		return said(o.Lab.Node(o.Member).Run(context.Background(), "revoke", n.Name))
	}
	return fmt.Errorf("no office knows %s", kind)
}

// heal ends what begin began.
func (o *Office) heal(ctx context.Context, n *lab.Node, kind Kind) error {
	switch kind {
	case Kill:
		return n.Start(ctx)
	case Sleep:
		return n.Wake()
	case Unplug:
		return n.Plug()
	case Partition, Slow:
		return o.Lab.Heal()
	case Pause:
		return said(n.Run(ctx, "resume"))
	case Fill:
		return n.Empty()
	case Revoke: // somebody else gets the machine
		if err := n.Stop(); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(n.Dir(), "state")); err != nil {
			return err
		}
		if err := n.Start(ctx); err != nil {
			return err
		}
		return scenarios.Admit(ctx, o.Lab, o.Member, n.Name)
	}
	return nil
}

// said makes what a verb printed part of its error.
func said(out string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
