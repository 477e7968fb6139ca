package cgroup

import (
	"errors"
	"os"
	"sync"
	"time"
)

// Fake is a Manager in memory for tests: it limits nothing, and tells what it was asked.
type Fake struct {
	mu     sync.Mutex // guards groups and those in it
	groups map[string]*FakeGroup
}

// FakeGroup is a group of a Fake.
type FakeGroup struct {
	fake   *Fake
	name   string
	Limits Limits
	Pids   []int
	Killed bool
	Frozen bool
	Used   Stat // what Stat answers
}

// New makes a group; a name in use is refused, as the kernel does.
func (f *Fake) New(name string, limits Limits) (Group, error) {
	if name == "" {
		return nil, errors.New("control group has no name")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.groups == nil {
		f.groups = map[string]*FakeGroup{}
	}
	if f.groups[name] != nil {
		return nil, os.ErrExist
	}
	g := &FakeGroup{fake: f, name: name, Limits: limits, Used: Stat{Counted: true}}
	f.groups[name] = g
	return g, nil
}

// Used counts nothing.
func (f *Fake) Used() (time.Duration, bool) { return 0, false }

// Version is "fake".
func (f *Fake) Version() string { return "fake" }

// Close fails if groups are left.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.groups) > 0 {
		return errors.New("control groups are left")
	}
	return nil
}

// Add remembers the process.
func (g *FakeGroup) Add(pid int) error {
	g.fake.mu.Lock()
	defer g.fake.mu.Unlock()
	g.Pids = append(g.Pids, pid)
	return nil
}

// Freeze remembers the last word.
func (g *FakeGroup) Freeze(frozen bool) error {
	g.fake.mu.Lock()
	defer g.fake.mu.Unlock()
	g.Frozen = frozen
	return nil
}

// Kill remembers that it was asked for.
func (g *FakeGroup) Kill() error {
	g.fake.mu.Lock()
	defer g.fake.mu.Unlock()
	g.Killed = true
	return nil
}

// Stat answers Used.
func (g *FakeGroup) Stat() (Stat, error) {
	g.fake.mu.Lock()
	defer g.fake.mu.Unlock()
	return g.Used, nil
}

// Remove forgets the group.
func (g *FakeGroup) Remove() error {
	g.fake.mu.Lock()
	defer g.fake.mu.Unlock()
	delete(g.fake.groups, g.name)
	return nil
}
