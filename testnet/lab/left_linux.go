package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Left is what actions have left on the nodes when nothing runs any more: processes and mounts in their scratch
// directories, these directories, control groups, also those of a node's earlier lives, slots that are taken, pins,
// operations. It is nil when nothing is.
func (l *Lab) Left(ctx context.Context) error {
	if err := mounted(l.Dir()); err != nil {
		return err
	}
	for _, n := range l.Running() {
		if groups := n.Groups(); len(groups) > 0 {
			return fmt.Errorf("%s: %d control groups are left, %s for one", n.Name, len(groups), groups[0])
		}
		for _, pattern := range []string{"run/scratch/*", "run/trash/*", "probe-*"} {
			found, err := filepath.Glob(filepath.Join(n.Dir(), "cache", "exec", pattern))
			if err != nil {
				return err
			}
			if len(found) > 0 {
				return fmt.Errorf("%d directories of actions are left, %s for one", len(found), found[0])
			}
		}
		s, err := n.Status(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		if busy := s.Slots.GetCoresBusy(); busy != 0 || s.Slots.GetRunning() != 0 || s.Slots.GetQueued() != 0 {
			return fmt.Errorf("%s: %v of its slots are taken", n.Name, s.Slots)
		}
		if s.Store.GetPinned() != 0 {
			return fmt.Errorf("%s: %d blobs are pinned", n.Name, s.Store.GetPinned())
		}
		if len(s.Flights) > 0 {
			return fmt.Errorf("%s: %d operations are under way, %v for one", n.Name, len(s.Flights), s.Flights[0])
		}
	}
	return nil
}

// mounted tells of a process that sees the scratch directory of an action as a mount: the action's own, or one that kept it.
func mounted(dir string) error {
	tables, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return err
	}
	for _, table := range tables {
		mounts, err := os.ReadFile(table)
		if err != nil {
			continue // it has ended
		}
		for line := range bytes.Lines(mounts) {
			if bytes.Contains(line, []byte("/"+filepath.Base(dir)+"/")) && bytes.Contains(line, []byte("/exec/run/scratch/")) {
				command, _ := os.ReadFile(filepath.Join(filepath.Dir(table), "cmdline"))
				return fmt.Errorf("%s is left with the mounts of an action: %q", filepath.Dir(table), command)
			}
		}
	}
	return nil
}
