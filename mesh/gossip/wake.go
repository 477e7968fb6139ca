package gossip

import "time"

const (
	// pulseEvery is how often the wake detector looks at the clocks.
	pulseEvery = time.Second
	// sleepSlack is how late a look may come on a busy machine before it counts as sleep.
	sleepSlack = 4 * time.Second
)

// pulse is one look at the two clocks of a machine. The wall clock goes on while the machine sleeps; the
// monotonic one stops on Linux and macOS, and goes on when only the process was stopped.
type pulse struct {
	wall time.Time
	mono time.Duration // since a moment that does not matter
}

// slept is how long the machine or the process was away between two looks; zero: not at all. A wall clock
// set forward looks the same, and costs a rejoin; one set back does not count.
func slept(before, now pulse) time.Duration {
	away := max(now.wall.Sub(before.wall), now.mono-before.mono) - pulseEvery
	if away < sleepSlack {
		return 0
	}
	return away
}

// look reads both clocks.
func (g *Gossip) look(began time.Time) pulse {
	return pulse{wall: g.o.Wall().Round(0), mono: time.Since(began)}
}
