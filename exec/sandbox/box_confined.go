//go:build darwin || windows

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

// Box runs actions in the best tier this machine has: C or D. It is made by Probe.
type Box struct {
	tier        Tier
	confinement confinement
}

// Main returns at once: init exists on Linux only.
func Main() {}

// Probe gives a Box of TierC when one complete confined run of systemProbe answers as it must, else one of TierD. The error
// is about Options or the directory.
func Probe(ctx context.Context, o Options) (*Box, Report, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, Report{}, fmt.Errorf("open sandbox: directory %q is not absolute", o.Dir)
	}
	base, err := filepath.EvalSymlinks(o.Dir)
	if err != nil {
		return nil, Report{}, fmt.Errorf("open sandbox: %w", err)
	}
	if err := o.setMinFree(); err != nil {
		return nil, Report{}, err
	}
	sweepProbes(o.Dir)
	b := &Box{tier: TierD, confinement: confinement{launcher: newLauncher(base), foldCase: foldCase}}
	report := Report{Init: "node", Groups: "none"}
	if o.Best == TierD {
		report.Tier = TierD
		return b, report, nil
	}
	b.tier = TierC
	if err := b.try(ctx, base); err != nil {
		b.tier = TierD
		report.Findings = append(report.Findings, Finding{Fact: fmt.Sprintf("tier C does not work: %v", err)})
	} else {
		report.Findings = append(report.Findings, Finding{Fact: "tier C: one complete sandbox was run; only this machine's own actions are run"})
	}
	report.Tier = b.tier
	b.confinement.minFree = o.MinFree // not before: a node that starts on a full disk would run nothing even when there is room again
	if ctx.Err() != nil {
		return nil, Report{}, fmt.Errorf("probe sandbox: %w", ctx.Err())
	}
	return b, report, nil
}

// try runs one complete sandbox: it reads an input, changes its private copy, and stays out of what is not its own where
// the system can keep it out.
func (b *Box) try(ctx context.Context, base string) error {
	dir, err := os.MkdirTemp(base, probes)
	if err != nil {
		return err
	}
	defer Remove(dir)
	input, secret := filepath.Join(dir, "input"), filepath.Join(dir, "secret")
	err = os.Mkdir(input, 0o755)
	for path, content := range map[string]string{secret: "", filepath.Join(input, "file"): "probe"} {
		if err == nil {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
	}
	if err != nil {
		return err
	}
	result, err := b.Run(ctx, Spec{
		Lowers: []string{input}, Scratch: filepath.Join(dir, "scratch"), UID: -1, GID: -1,
		Arguments: systemProbe(secret), Limits: Limits{Wall: 20 * time.Second},
	})
	if err != nil {
		return err
	}
	if result.ExitCode != 0 {
		complaint, _ := os.ReadFile(result.StderrPath)
		return fmt.Errorf("a test action ended with %d: %q", result.ExitCode, complaint)
	}
	if made, _ := os.ReadFile(filepath.Join(result.Upper, "made")); string(made) != "probe" {
		return fmt.Errorf("a test action did not copy its input: %q", made)
	}
	if reached, _ := os.ReadFile(secret); len(reached) > 0 {
		return errors.New("a test action wrote outside of its directory")
	}
	if kept, _ := os.ReadFile(filepath.Join(input, "file")); string(kept) != "probe" {
		return errors.New("a test action changed its input layer")
	}
	return nil
}

// Close gives up what the Box holds.
func (b *Box) Close() error { return nil }

// Tier is C or D.
func (b *Box) Tier() Tier { return b.tier }

// Owner is nobody else than the node.
func (b *Box) Owner() (uid, gid int, need bool) { return 0, 0, false }

// Run runs one action, as on Linux.
func (b *Box) Run(ctx context.Context, spec Spec) (Result, error) {
	if b.tier == TierD {
		return Result{}, ErrNoSandbox
	}
	return b.confinement.run(ctx, spec)
}

// Freeze cannot: what disturbs has to be ended instead.
func (b *Box) Freeze(bool) error { return cgroup.ErrNoFreezer }
