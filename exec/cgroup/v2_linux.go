package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// v2 makes groups below the node's own group, which has to be delegated to it. A group with children must not have
// processes of its own, so the node moves itself into a leaf first.
type v2 struct {
	base        string // the node's original group
	home        string // the parent of all groups
	controllers string // of groups, as they are asked for
}

// leaf is where the node itself moves.
const leaf = "buildmesh-node"

// above is the group in which a node makes its own: the one it is in, or, for one that was started again by itself, was in.
func above(base string) string {
	if filepath.Base(base) == leaf {
		return filepath.Dir(base)
	}
	return base
}

func findV2(base string) (Manager, error) {
	available, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
	if err != nil {
		return None{}, fmt.Errorf("use control group: %w", err)
	}
	for _, c := range []string{"memory", "pids"} {
		if !hasField(string(available), c) {
			return None{}, fmt.Errorf("use control group: controller %s is not delegated to %s", c, base)
		}
	}
	base = above(base)
	made, err := makeHome(base)
	if err != nil {
		return None{}, fmt.Errorf("use control group: %w", err)
	}
	m := &v2{base: base, home: made}
	if err := m.open(string(available)); err != nil {
		_ = m.Close()
		return None{}, err
	}
	return m, nil
}

func (m *v2) open(available string) error {
	if err := os.Mkdir(filepath.Join(m.base, leaf), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("use control group: %w", err)
	}
	if err := write(filepath.Join(m.base, leaf), "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	m.controllers = "+memory +pids"
	if hasField(available, "cpu") {
		m.controllers += " +cpu"
	}
	return errors.Join(m.delegate(m.base), m.delegate(m.home))
}

// delegate has the groups below dir get the controllers.
func (m *v2) delegate(dir string) error { return write(dir, "cgroup.subtree_control", m.controllers) }

func hasField(list, name string) bool {
	for f := range strings.FieldsSeq(list) {
		if f == name {
			return true
		}
	}
	return false
}

// Used is what has been counted in the node's directory of groups.
func (m *v2) Used() (time.Duration, bool) {
	return time.Duration(field(m.home, "cpu.stat", "usage_usec")) * time.Microsecond, true
}

// Version is "v2".
func (m *v2) Version() string { return "v2" }

// Close removes the node's directory of groups; they must be gone.
func (m *v2) Close() error { return remove(m.home) }

// New makes one group.
func (m *v2) New(name string, limits Limits) (Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	g := &v2Group{path: filepath.Join(m.home, name)}
	if err := makeGroup(g.path, m.delegate); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	if err := g.limit(limits); err != nil {
		_ = g.Remove()
		return nil, err
	}
	return g, nil
}

type v2Group struct{ path string }

func (g *v2Group) limit(l Limits) error {
	if l.Memory > 0 {
		if err := write(g.path, "memory.max", strconv.FormatInt(l.Memory, 10)); err != nil {
			return err
		}
		_ = write(g.path, "memory.swap.max", "0") // absent without swap accounting
		_ = write(g.path, "memory.oom.group", "1")
	}
	if l.Pids > 0 {
		if err := write(g.path, "pids.max", strconv.Itoa(l.Pids)); err != nil {
			return err
		}
	}
	if l.Idle {
		_ = write(g.path, "cpu.weight", "1")
		_ = write(g.path, "cpu.idle", "1") // Linux 5.15
		return nil
	}
	if l.Cores > 0 {
		_ = write(g.path, "cpu.weight", strconv.Itoa(min(10000, max(1, int(l.Cores*100))))) // absent without the controller
	}
	return nil
}

func (g *v2Group) Add(pid int) error { return write(g.path, "cgroup.procs", strconv.Itoa(pid)) }

// Freeze uses cgroup.freeze (Linux 5.2), which every group has. What is frozen can be killed.
func (g *v2Group) Freeze(frozen bool) error {
	state := "0"
	if frozen {
		state = "1"
	}
	if err := write(g.path, "cgroup.freeze", state); err != nil {
		return fmt.Errorf("%w: %w", ErrNoFreezer, err)
	}
	return nil
}

// Kill uses cgroup.kill (Linux 5.14), which misses no process however fast it forks.
func (g *v2Group) Kill() error {
	if err := write(g.path, "cgroup.kill", "1"); err == nil {
		return nil
	}
	return killProcesses(g.path)
}

func (g *v2Group) Stat() (Stat, error) {
	return Stat{
		Counted:     true,
		PeakMemory:  number(g.path, "memory.peak"),
		OutOfMemory: field(g.path, "memory.events", "oom_kill") > 0,
		UserNanos:   field(g.path, "cpu.stat", "user_usec") * 1000,
		SystemNanos: field(g.path, "cpu.stat", "system_usec") * 1000,
	}, nil
}

func (g *v2Group) Remove() error {
	_ = g.Kill()
	return remove(g.path)
}
