package node

import (
	"github.com/buildmesh/buildmesh/exec/bot"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/exec/slot"
)

// openPlacer gives what decides where actions run: this machine, and with exec.bots the bots in touch.
func (n *Node) openPlacer(m *machine, runner *run.Runner) flight.Placer {
	var here flight.Placer
	if n.mesh != nil {
		m.leasing = n.openLeasing(m, runner)
		here = countedPlacer{m.leasing.initiator, m.counts}
	} else {
		m.slots = slot.New(slot.Capacity{Cores: m.offer.Cores, MemoryBytes: m.offer.MemoryBytes})
		here = countedPlacer{flight.Here{Executor: countedExecutor{ownExecutor{n, runner.Storing}, m.counts}, Slots: m.slots}, m.counts}
	}
	if !n.config.Exec.Bots {
		return here
	}
	m.bots = bot.New(bot.Options{})
	n.onClose("bots", func() error { m.bots.Close(); return nil })
	m.placer = bot.NewPlacer(bot.PlacerOptions{
		Bots: m.bots, Blobs: n.store, Here: here, Suits: m.here, Complete: n.results.cache.Complete,
		Busy: func() bool {
			s := m.room()
			return s.Waiting > 0 || s.FreeCores < 1
		},
	})
	return m.placer
}
