package cgroup

import (
	"errors"
	"time"
)

// Manager makes control groups.
type Manager interface {
	// New makes a group with a name unique among the groups that exist, and sets its limits.
	New(name string, limits Limits) (Group, error)
	// Used is the processor time of all groups so far, those that are gone included; false: it is not counted.
	Used() (time.Duration, bool)
	// Version names what is in use: "v2", "v1" or "none".
	Version() string
	// Close removes what the Manager itself made. All groups must be removed before.
	Close() error
}

// Group is one control group.
type Group interface {
	// Add moves a process, which has no children yet, into the group.
	Add(pid int) error
	// Freeze makes every process in the group stand still, or go on. Error: ErrNoFreezer.
	Freeze(frozen bool) error
	// Kill kills every process in the group, frozen or not.
	Kill() error
	// Stat tells what the group used. It may be called until Remove.
	Stat() (Stat, error)
	// Remove kills what is left and removes the group.
	Remove() error
}

// ErrNoFreezer means that processes cannot be made to stand still by their group.
var ErrNoFreezer = errors.New("control groups cannot freeze here")

// Limits of a group. Zero means unlimited.
type Limits struct {
	Memory int64   // bytes; swap is not given beyond it
	Pids   int     // processes and threads
	Cores  float64 // relative share of processor time when others want it too; 1 is normal
	Idle   bool    // processor time only when nobody else wants it, whatever Cores says
}

// Stat tells what the processes of a group used.
type Stat struct {
	Counted     bool  // whether anything below was counted at all
	PeakMemory  int64 // bytes
	OutOfMemory bool  // a process was killed because the group had no memory left
	UserNanos   int64
	SystemNanos int64
}

// None is the Manager of a machine without usable control groups: it limits and counts nothing.
type None struct{}

// New gives a group that does nothing.
func (None) New(string, Limits) (Group, error) { return noGroup{}, nil }

// Used counts nothing.
func (None) Used() (time.Duration, bool) { return 0, false }

// Version is "none".
func (None) Version() string { return "none" }

// Close does nothing.
func (None) Close() error { return nil }

type noGroup struct{}

func (noGroup) Add(int) error       { return nil }
func (noGroup) Freeze(bool) error   { return ErrNoFreezer }
func (noGroup) Kill() error         { return nil }
func (noGroup) Stat() (Stat, error) { return Stat{}, nil }
func (noGroup) Remove() error       { return nil }
