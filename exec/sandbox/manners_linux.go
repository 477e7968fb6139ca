package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/buildmesh/buildmesh/exec/cgroup"
	"golang.org/x/sys/unix"
)

// Actions in the background get what processor time nobody else wants. Where a control group with a processor controller
// holds them, that says so; everywhere, they are niced and scheduled as idle, which also tells the power readers that their
// time is not the owner's. Niceness alone is useless where the kernel groups processes by session (sched(7), "The autogroup
// feature"): each action that began a session of its own would get the share of a whole desktop. So all background actions
// stay in the session of one spawner, and it is that session's niceness that counts.

// backgroundNice is the least urgent niceness there is.
const backgroundNice = 19

// lower sets all threads of a process, and the session it leads, to the background. What it starts later inherits that.
func lower(pid int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return fmt.Errorf("put process %d into the background: %w", pid, err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, backgroundNice); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("nice process %d: %w", pid, err)
		}
		idle := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: backgroundNice}
		if err := unix.SchedSetAttr(tid, idle, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("schedule process %d as idle: %w", pid, err)
		}
	}
	err = os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "autogroup"), []byte(strconv.Itoa(backgroundNice)), 0)
	// Absent without the feature; EAGAIN when somebody not privileged changed another one a moment ago.
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("nice session of process %d: %w", pid, err)
	}
	return nil
}

// Freeze makes all actions in the background stand still, or go on. An error says that they could not all be stopped: the
// machine has no control groups that freeze, and what disturbs has to be ended instead.
func (b *Box) Freeze(frozen bool) error {
	b.background.Lock()
	defer b.background.Unlock()
	b.frozen = frozen
	var all error
	for g := range b.guests {
		all = errors.Join(all, g.Freeze(frozen))
	}
	return all
}

// freezable notes or forgets the control group of a run in the background. One that comes while all stand still stands still
// from its start.
func (b *Box) freezable(g cgroup.Group, runs bool) {
	b.background.Lock()
	defer b.background.Unlock()
	if !runs {
		delete(b.guests, g)
		return
	}
	if b.guests == nil {
		b.guests = map[cgroup.Group]struct{}{}
	}
	b.guests[g] = struct{}{}
	if b.frozen {
		_ = g.Freeze(true) // else it is ended with the others
	}
}
