package power

import (
	"fmt"
	"time"
)

// leave is how much below Policy.CPU the use must fall before it is no reason any more.
const leave = 0.2

// Core decides. It belongs to one goroutine.
type Core struct {
	policy Policy
	pause  Pause
	status Status
	better time.Time // since when nothing speaks for the present state; zero: something does
	busy   bool      // the processors are a reason
}

// NewCore makes a Core that is open, under a pause kept from before, if any.
func NewCore(now time.Time, p Policy, kept Pause) *Core {
	return &Core{policy: p, pause: kept, status: Status{State: Open, Since: now}}
}

// finding is the strongest reason against lending.
type finding struct {
	level  State // Open, Throttled or Closed
	reason string
	until  time.Time
	freeze bool // guests stand still while they wait to be evicted
	now    bool // without any grace
	stay   bool // guests may finish, however long they take
}

// Step takes what is so now, and how many guest actions run here, and gives what is to be done.
func (c *Core) Step(now time.Time, f Facts, guests int) Status {
	if now.Before(c.status.Since) { // the clock was set back: count from here
		c.status.Since = now
	}
	found := c.judge(now, f)
	switch {
	case found.level == Closed:
		c.close(now, found, guests)
	case c.status.State == Draining:
		c.enter(now, found.level, found) // the reason is gone before the guests are
	case found.level >= c.status.State:
		c.enter(now, found.level, found)
	default:
		c.improve(now, found)
	}
	return c.status
}

// close drains, evicts when the grace is over, and is closed when no guest is left.
func (c *Core) close(now time.Time, found finding, guests int) {
	if guests == 0 {
		c.enter(now, Closed, found)
		return
	}
	if c.status.State != Closed { // a guest that is found while closed goes at once
		c.enter(now, Draining, found)
	}
	over := now.Sub(c.status.Since) >= c.policy.Grace
	c.status.Freeze = found.freeze
	c.status.Evict = found.now || c.status.State == Closed || over && !found.stay
}

// improve goes to a better state when nothing has spoken against it for long enough.
func (c *Core) improve(now time.Time, found finding) {
	if c.better.IsZero() || now.Before(c.better) {
		c.better = now
	}
	if now.Sub(c.better) >= c.policy.Calm {
		c.enter(now, found.level, found)
	}
}

// enter changes the state, or only the reason for it.
func (c *Core) enter(now time.Time, s State, found finding) {
	since := c.status.Since
	if s != c.status.State {
		since = now
	}
	c.better = time.Time{}
	c.status = Status{State: s, Reason: found.reason, Since: since, Until: found.until}
}

// judge finds the strongest reason; of two equally strong ones the first in this order.
func (c *Core) judge(now time.Time, f Facts) finding {
	worst := finding{level: Open}
	for _, found := range []finding{c.paused(now), c.hours(now), c.battery(f), c.memory(f), c.user(f), c.metered(f), c.heat(f), c.processors(f)} {
		if found.level > worst.level {
			worst = found
		}
	}
	if worst.level == Throttled && 0 < c.policy.Cores && c.policy.Cores < 2 { // half of one core takes no action
		worst.level, worst.stay, worst.freeze = Closed, true, false
	}
	return worst
}

func (c *Core) paused(now time.Time) finding {
	if !c.pause.holds(now) {
		return finding{}
	}
	return finding{level: Closed, reason: "paused", until: c.pause.Until, now: c.pause.Now, stay: !c.pause.Now}
}

func (c *Core) hours(now time.Time) finding {
	open, begins := c.policy.Hours.opens(now)
	if open {
		return finding{}
	}
	return finding{level: Closed, reason: "lends only " + c.policy.Hours.String(), until: begins}
}

func (c *Core) battery(f Facts) finding {
	if !f.OnBattery {
		return finding{}
	}
	return finding{level: c.policy.Battery.level(), reason: fmt.Sprintf("on battery (%.0f %%)", f.Charge)}
}

func (c *Core) memory(f Facts) finding {
	if f.Available == 0 || f.Available >= c.policy.Reserve {
		return finding{}
	}
	return finding{level: Closed, reason: fmt.Sprintf("only %d MiB of memory are free", f.Available>>20)}
}

func (c *Core) user(f Facts) finding {
	if !f.Active {
		return finding{}
	}
	return finding{level: c.policy.User.level(), reason: "somebody uses the machine", freeze: true}
}

func (c *Core) metered(f Facts) finding {
	if !f.Metered {
		return finding{}
	}
	return finding{level: c.policy.Metered.level(), reason: "the network is metered"}
}

func (c *Core) heat(f Facts) finding {
	if !f.Hot {
		return finding{}
	}
	return finding{level: c.policy.Heat.level(), reason: "the machine is hot"}
}

// processors has a threshold to enter and a lower one to leave.
func (c *Core) processors(f Facts) finding {
	limit := c.policy.CPU
	if c.busy {
		limit -= leave
	}
	c.busy = c.policy.CPU > 0 && f.OtherCPU >= limit
	if !c.busy {
		return finding{}
	}
	return finding{level: Throttled, reason: fmt.Sprintf("other programs use %.0f %% of the processors", 100*f.OtherCPU)}
}
