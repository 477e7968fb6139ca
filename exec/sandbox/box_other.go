//go:build !linux && !darwin && !windows

package sandbox

import (
	"context"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

// Box runs actions in the best tier this machine has. It is made by Probe.
type Box struct{}

// Main returns at once: init exists on Linux only.
func Main() {}

// Probe gives a Box of TierD: nothing is run on this system yet.
func Probe(context.Context, Options) (*Box, Report, error) {
	return &Box{}, Report{Tier: TierD, Findings: []Finding{{Fact: "no sandbox is known for this system"}}}, nil
}

// Close gives up what the Box holds.
func (b *Box) Close() error { return nil }

// Tier is TierD.
func (b *Box) Tier() Tier { return TierD }

// Owner is nobody else than the node.
func (b *Box) Owner() (uid, gid int, need bool) { return 0, 0, false }

// Run refuses.
func (b *Box) Run(context.Context, Spec) (Result, error) { return Result{}, ErrNoSandbox }

// Freeze cannot: what disturbs has to be ended instead.
func (b *Box) Freeze(bool) error { return cgroup.ErrNoFreezer }
