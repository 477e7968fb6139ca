package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

// Left is what actions have left on the nodes of a lab when nothing runs any more: processes and mounts in their scratch
// directories, these directories, control groups, also those of a node's earlier lives, slots that are taken, pins,
// operations. It is nil when nothing is.
func Left(ctx context.Context, l *lab.Lab) error {
	if err := mounted(l.Dir()); err != nil {
		return err
	}
	for _, n := range l.Running() {
		if err := grouped(n); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
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

// grouped tells of a control group of an action, or of a life of the node that is over.
func grouped(n *lab.Node) error {
	lives := n.Lives()
	for _, parent := range parents() {
		homes, err := filepath.Glob(filepath.Join(parent, "buildmesh-*"))
		if err != nil {
			return err
		}
		for _, home := range homes {
			owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(home), "buildmesh-"), "-")
			pid, err := strconv.Atoi(owner)
			if err != nil || !slices.Contains(lives, pid) {
				continue
			}
			if pid != n.PID() {
				return fmt.Errorf("control group %s of an earlier life is left", home)
			}
			if groups, _ := filepath.Glob(filepath.Join(home, "*", "cgroup.procs")); len(groups) > 0 {
				return fmt.Errorf("%d control groups of actions are left, %s for one", len(groups), filepath.Dir(groups[0]))
			}
		}
	}
	return nil
}

// parents are the control groups this process is in, and so the nodes it has started: there nodes make theirs. See cgroups(7).
func parents() []string {
	const root = "/sys/fs/cgroup"
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil // a machine without any
	}
	var all []string
	for line := range strings.Lines(string(own)) {
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			for controller := range strings.SplitSeq(fields[1], ",") {
				all = append(all, filepath.Join(root, controller, fields[2]))
			}
		}
	}
	return all
}
