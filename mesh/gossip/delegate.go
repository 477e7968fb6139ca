package gossip

import (
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist asks and tells, for one boot. memberlist holds its lock meanwhile: nothing
// here may call it, or wait.
type delegate struct {
	gossip *Gossip
	name   string // of this node, with the boot
	at     netip.AddrPort
}

// NodeMeta is this node's card. memberlist bounds it by limit and panics beyond; so does seal, by an error,
// after which there is no card, and nobody believes this node.
func (d *delegate) NodeMeta(limit int) []byte {
	g := d.gossip
	g.mu.Lock()
	c := card{leaving: g.leaving, held: g.ring.held(), used: g.ring.use, control: g.o.Control, bulk: g.o.Bulk}
	g.mu.Unlock()
	c.epoch, c.cert = g.o.Admission.Epoch(), g.o.Admission.Certificate()
	meta, err := c.seal(g.o.Identity, g.o.Label, d.name, d.at)
	if err == nil && len(meta) > limit {
		err = fmt.Errorf("%d bytes, at most %d", len(meta), limit)
	}
	if err != nil {
		g.note("own", err)
		return nil
	}
	return meta
}

// NotifyAlive lets in whose certificate and card are good.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.name {
		return nil
	}
	in, err := d.gossip.door.check(n)
	if err != nil {
		d.gossip.note("refused", err)
		return err
	}
	d.gossip.compare(in)
	return nil
}

// NotifyMerge refuses a mesh of which nobody is let in: another one with the same label and key, or one
// whose certificates have all expired by this machine's clock. Others are looked at one by one.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	var refused error
	others := 0
	for _, n := range nodes {
		if n.Name == d.name {
			continue
		}
		others++
		_, err := d.gossip.door.check(n)
		if err == nil {
			return nil
		}
		refused = err
	}
	if others == 0 {
		return nil
	}
	err := fmt.Errorf("none of its %d nodes is a member, such as: %w", others, refused)
	d.gossip.note("refused", err)
	return err
}

// NotifyJoin, NotifyUpdate and NotifyLeave bring the claims into the roster.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.NotifyUpdate(n) }

// NotifyUpdate is a member with a new card.
func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	if n.Name == d.name {
		return
	}
	in, err := d.gossip.door.check(n)
	if err != nil {
		return // NotifyAlive let it in a moment ago: its certificate ended in between
	}
	g := d.gossip
	g.mu.Lock()
	known := g.cards[in.member.ID]
	if in.card.leaving {
		if known != nil && known.member.Boot == in.member.Boot {
			delete(g.cards, in.member.ID)
		}
	} else {
		g.cards[in.member.ID] = in
	}
	g.mu.Unlock()
	g.o.Roster.ClaimAlive(in.member)
	if in.card.leaving {
		g.o.Roster.ClaimGone(in.member.ID, in.member.Boot, true)
	}
}

// NotifyLeave is a start that gossip lost.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	id, boot, err := parseName(n.Name)
	if err != nil || n.Name == d.name {
		return
	}
	g := d.gossip
	g.mu.Lock()
	if known := g.cards[id]; known != nil && known.member.Boot == boot {
		delete(g.cards, id)
	}
	g.mu.Unlock()
	g.o.Roster.ClaimGone(id, boot, false)
}

// NotifyConflict is one boot at two addresses: a card is signed for one, so somebody changed it on the way,
// or copied a running node.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.gossip.note("conflict", fmt.Errorf("%s is at %s and at %s", existing.Name, existing.Address(), other.Address()))
}

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState carry nothing: what members tell each other
// goes over authenticated streams.
func (d *delegate) NotifyMsg([]byte)                {}
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

// compare notes what a card says of the revocation list. Held are memberlist's lock and, here, mu.
func (g *Gossip) compare(in *introduced) {
	if in.card.epoch <= g.o.Admission.Epoch() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.newer) < maxNewer {
		g.newer[in.member.ID] = in.card.epoch
	}
}

// maxNewer bounds how many members with a newer list are remembered between two pulses.
const maxNewer = 16

// report is what happened lately, for Status.
type report struct {
	refused, conflict, join, own, tcpOnly Event
}

// note keeps the last error of a kind.
func (g *Gossip) note(kind string, err error) {
	if err == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := Event{err, time.Now()}
	switch kind {
	case "refused":
		g.report.refused = n
	case "conflict":
		g.report.conflict = n
	case "join":
		g.report.join = n
	case "tcp only":
		g.report.tcpOnly = n
	default:
		g.report.own = n
	}
}

// muffle turns memberlist's log lines into debug lines of ours, and hears in them what memberlist says nowhere else.
type muffle struct {
	log     *slog.Logger
	tcpOnly func(name string) // of the node that answered over TCP alone
}

func newMuffle(to *slog.Logger, tcpOnly func(string)) *log.Logger {
	return log.New(muffle{to, tcpOnly}, "", 0)
}

func (m muffle) Write(line []byte) (int, error) {
	text := strings.TrimRight(string(line), "\n")
	if name, found := overTCP(text); found {
		m.tcpOnly(name)
	}
	m.log.Debug("gossip", "text", text)
	return len(line), nil
}

// overTCP reads the name from the line memberlist writes when a probe failed by UDP and went well by TCP.
func overTCP(line string) (name string, found bool) {
	_, rest, found := strings.Cut(line, "Was able to connect to ")
	if !found {
		return "", false
	}
	name, _, found = strings.Cut(rest, " over TCP but UDP probes failed")
	return name, found
}

// onlyTCP notes whom packets do not reach.
func (g *Gossip) onlyTCP(name string) {
	if id, _, err := parseName(name); err == nil {
		g.note("tcp only", fmt.Errorf("%s answers over TCP only", id.Short()))
	}
}
