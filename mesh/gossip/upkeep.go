package gossip

import (
	"net/netip"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// follow begins anew when the node is reached at another address than it told. It is called by run alone.
func (g *Gossip) follow() {
	at := g.o.Address()
	g.mu.Lock()
	moved := at.IsValid() && !g.leaving && (g.list == nil || at.Addr().Unmap() != g.at.Addr())
	if !moved {
		g.mu.Unlock()
		return
	}
	if g.at.IsValid() {
		at = netip.AddrPortFrom(at.Addr(), g.at.Port())
	}
	old := g.list
	g.list = nil
	clear(g.cards)
	g.mu.Unlock()
	if old != nil {
		// It goes first: it has the port. Nobody hears a goodbye from an address that is gone.
		g.note("own", old.Shutdown())
	}
	if err := g.create(at); err != nil {
		g.note("own", err) // without a list the next pulse tries again
		return
	}
	g.rejoin.all()
}

// turnKeys moves the keys on, and tells the others when it did.
func (g *Gossip) turnKeys() {
	g.mu.Lock()
	defer g.mu.Unlock()
	others := told{held: g.ring.held(), used: g.ring.held()}
	for _, in := range g.cards {
		others.held, others.used = min(others.held, in.card.held), min(others.used, in.card.used)
	}
	if g.ring.step(others, time.Now()) {
		g.applyRing()
		g.updates.Store(true)
	}
}

// applyRing brings memberlist's keyring in line with ours. Caller holds mu; the keyring has its own lock.
func (g *Gossip) applyRing() {
	keep := make(map[Key]bool)
	var use Key
	for _, k := range g.ring.keys {
		keep[k.key] = true
		_ = g.keyring.AddKey(k.key[:]) // fails only for keys of a wrong size
		if k.epoch == g.ring.use {
			use = k.key
		}
	}
	_ = g.keyring.UseKey(use[:])
	for n := len(g.keyring.GetKeys()); n > 0; n-- {
		keys := g.keyring.GetKeys()
		last := keys[len(keys)-1]
		if !keep[Key(last)] {
			// Only the last key can be removed without writing into a slice that others read.
			_ = g.keyring.RemoveKey(last)
			continue
		}
		// To the front, and the one in use before it: another is the last now.
		_ = g.keyring.UseKey(last)
		_ = g.keyring.UseKey(use[:])
	}
}

// tell sends the card again when it changed, and Newer what was noted.
func (g *Gossip) tell() {
	if g.updates.Swap(false) {
		g.mu.Lock()
		list := g.list
		g.mu.Unlock()
		if list != nil {
			_ = list.UpdateNode(updateWait) // queued when it returns; whether it was sent, the next exchange tells
		}
	}
	g.mu.Lock()
	newer := g.newer
	g.newer = make(map[peer.ID]uint64)
	g.mu.Unlock()
	if g.o.Newer == nil {
		return
	}
	for id, epoch := range newer {
		g.o.Newer(id, epoch)
	}
}

// updateWait is how long run waits for a new card to be sent.
const updateWait = 100 * time.Millisecond
