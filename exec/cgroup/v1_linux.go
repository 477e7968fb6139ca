package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// v1 makes one directory per controller and group. It needs root.
type v1 struct {
	homes map[string]string // controller to this node's directory
}

// The controllers of version 1 that are used. The first two must exist. The last is swept first: what is frozen leaves no group.
var v1Controllers = []string{"memory", "pids", "cpu", "cpuacct", "freezer"}

// The freezer controller's file, and what it says when nothing is frozen.
const (
	freezerState = "freezer.state"
	thawed       = "THAWED"
)

// leastShares is the least the kernel takes; 1024 are normal.
const leastShares = 2

func findV1(root string, paths map[string]string) (Manager, error) {
	m := &v1{homes: map[string]string{}}
	for i, c := range v1Controllers {
		path, ok := paths[c]
		made, err := "", errors.New("not mounted")
		if ok {
			made, err = m.makeHome(filepath.Join(root, c, path))
		}
		if err == nil {
			m.homes[c] = made
			continue
		}
		if i < 2 {
			_ = m.Close()
			return None{}, fmt.Errorf("use %s control group: %w", c, err)
		}
	}
	return m, nil
}

// makeHome makes this node's directory below parent, unless another controller of the same hierarchy has one: processors and their
// accounting are often one, "cpu,cpuacct".
func (m *v1) makeHome(parent string) (string, error) {
	here, err := os.Stat(parent)
	if err != nil {
		return "", err
	}
	for _, made := range m.homes {
		if there, err := os.Stat(filepath.Dir(made)); err == nil && os.SameFile(here, there) {
			return made, nil
		}
	}
	return makeHome(parent)
}

// Used is what the accounting controller has counted below the node's own directory.
func (m *v1) Used() (time.Duration, bool) {
	dir, ok := m.homes["cpuacct"]
	if !ok || m.shares("cpuacct") { // idle groups stay out of it
		return 0, false
	}
	return time.Duration(number(dir, "cpuacct.usage")), true
}

// Version is "v1".
func (m *v1) Version() string { return "v1" }

// Close removes the node's own directories; groups must be gone.
func (m *v1) Close() error {
	var all error
	for _, dir := range m.homes {
		all = errors.Join(all, remove(dir))
	}
	return all
}

// New makes the group in every controller.
func (m *v1) New(name string, limits Limits) (Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	g := &v1Group{dirs: map[string]string{}}
	for c, parent := range m.homes {
		if limits.Idle && m.shares(c) {
			continue
		}
		dir := filepath.Join(parent, name)
		if slices.Contains(slices.Collect(maps.Values(g.dirs)), dir) { // controllers of one hierarchy
			g.dirs[c] = dir
			continue
		}
		if err := makeGroup(dir, func(string) error { return nil }); err != nil {
			_ = g.Remove()
			return nil, fmt.Errorf("make control group: %w", err)
		}
		g.dirs[c] = dir
	}
	if err := g.limit(limits); err != nil {
		_ = g.Remove()
		return nil, err
	}
	return g, nil
}

// shares reports whether a controller's groups divide the processors. An idle group must stay out of them: it would get its
// idle part of what the node's own group gets, which is as much as all the owner's programs together get (measured: a job
// beside four actions took 2.06 times as long as alone; outside, where only their scheduling says idle, 1.02 times).
func (m *v1) shares(controller string) bool { return m.homes[controller] == m.homes["cpu"] }

type v1Group struct {
	dirs map[string]string
}

func (g *v1Group) limit(l Limits) error {
	if l.Memory > 0 {
		bytes := strconv.FormatInt(l.Memory, 10)
		if err := write(g.dirs["memory"], "memory.limit_in_bytes", bytes); err != nil {
			return err
		}
		// Absent where the kernel does not account for swap; then the machine's own limit must do.
		_ = write(g.dirs["memory"], "memory.memsw.limit_in_bytes", bytes)
	}
	if l.Pids > 0 {
		if err := write(g.dirs["pids"], "pids.max", strconv.Itoa(l.Pids)); err != nil {
			return err
		}
	}
	if dir, ok := g.dirs["cpu"]; ok && l.Cores > 0 {
		return write(dir, "cpu.shares", strconv.Itoa(max(leastShares, int(l.Cores*1024))))
	}
	return nil
}

func (g *v1Group) Add(pid int) error {
	for _, dir := range g.dirs {
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Freeze uses the freezer controller (Linux Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
func (g *v1Group) Freeze(frozen bool) error {
	dir, ok := g.dirs["freezer"]
	if !ok {
		return ErrNoFreezer
	}
	state := thawed
	if frozen {
		state = "FROZEN"
	}
	return write(dir, freezerState, state)
}

// Kill thaws as well: what is frozen does not die.
func (g *v1Group) Kill() error {
	err := killProcesses(g.dirs["pids"])
	if g.dirs["freezer"] != "" {
		_ = g.Freeze(false)
	}
	return err
}

func (g *v1Group) Stat() (Stat, error) {
	s := Stat{
		Counted:     true,
		PeakMemory:  number(g.dirs["memory"], "memory.max_usage_in_bytes"),
		OutOfMemory: field(g.dirs["memory"], "memory.oom_control", "oom_kill") > 0,
	}
	if dir, ok := g.dirs["cpuacct"]; ok {
		s.UserNanos, s.SystemNanos = number(dir, "cpuacct.usage_user"), number(dir, "cpuacct.usage_sys")
	}
	return s, nil
}

func (g *v1Group) Remove() error {
	var all error
	for _, dir := range g.dirs {
		all = errors.Join(all, remove(dir))
	}
	return all
}
