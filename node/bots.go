package node

import (
	"github.com/buildmesh/buildmesh/exec/bot"
	"github.com/buildmesh/buildmesh/exec/flight"
)

// openPlacer gives what decides where actions run: this machine, and with exec.bots the bots in touch.
func (n *Node) openPlacer(m *machine, executor flight.Executor) flight.Placer {
	counted := countedExecutor{executor, m.counts}
	here := flight.Here{Executor: counted, Slots: countedSlots{m.slots, m.counts}}
	if !n.config.Exec.Bots {
		return here
	}
	m.bots = bot.New(bot.Options{})
	n.onClose("bots", func() error { m.bots.Close(); return nil })
	m.placer = bot.NewPlacer(bot.PlacerOptions{
		Bots: m.bots, Blobs: n.store, Here: here, Suits: m.here, Complete: n.results.cache.Complete,
		Busy: func() bool {
			s := m.slots.Stat()
			return s.Waiting > 0 || s.FreeCores < 1
		},
	})
	return m.placer
}
