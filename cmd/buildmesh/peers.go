package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// peersVerb is `buildmesh peers`.
type peersVerb struct {
	Who string `arg:"" optional:"" help:"Tell everything about this one: a name, a peer id or the end of one."`
}

// Run prints the other members as this node sees them.
func (p *peersVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Peers.Peers(v.ctx, &controlv1.PeersRequest{})
	if err != nil {
		return plain(err)
	}
	if p.Who != "" {
		return p.one(v, answer)
	}
	if len(answer.Peers) == 0 {
		if _, err := fmt.Fprintf(v.out, "mesh %s has no other members in sight; bring one in with: buildmesh invite\n", answer.Mesh); err != nil {
			return err
		}
		return v.table(nearbyRows(answer.Strangers), problemRows(answer.Problems))
	}
	rows := []string{"NAME\tSTATE\tFOR\tLENDS\tSITE\tADDRESS\tPEER"}
	for _, one := range answer.Peers {
		rows = append(rows, strings.Join([]string{
			one.Name, one.State, human.Age(time.Since(one.Since.AsTime())), lends(one), dash(one.Site), dash(one.Address), one.PeerId[len(one.PeerId)-8:],
		}, "\t"))
	}
	return v.table(rows, nearbyRows(answer.Strangers), problemRows(answer.Problems))
}

// nearbyRows names other meshes on the same network.
func nearbyRows(names []string) []string {
	var rows []string
	for _, name := range names {
		rows = append(rows, "nearby\tmesh "+name+"; to join it, get a code from one of its members: buildmesh invite")
	}
	return rows
}

// lends is what a peer has free for others, in a few words.
func lends(p *controlv1.Peer) string {
	f := p.Facts
	switch {
	case f == nil:
		return "-"
	case f.State != "ready":
		return human.State(f.State, f.Reason)
	}
	return fmt.Sprintf("%s of %s cores", human.Cores(f.CoresFree), human.Cores(f.Cores))
}

// problemRows lists what there is to mend, with the command that does.
func problemRows(problems []*controlv1.Problem) []string {
	var rows []string
	for _, p := range problems {
		row := "problem\t" + p.Text
		if p.Fix != "" {
			row += "; see: " + p.Fix
		}
		rows = append(rows, row)
	}
	return rows
}

// one prints everything about one peer.
func (p *peersVerb) one(v *verbContext, answer *controlv1.PeersResponse) error {
	var found []*controlv1.Peer
	for _, one := range answer.Peers {
		if one.Name == p.Who || len(p.Who) >= 4 && strings.HasSuffix(one.PeerId, p.Who) {
			found = append(found, one)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("no member in sight is called %q; all are listed by: buildmesh peers", p.Who)
	}
	blocks := make([][]string, 0, len(found))
	for _, one := range found {
		blocks = append(blocks, peerRows(one))
	}
	return v.table(blocks...)
}

// peerRows is one peer in lines of label and value.
func peerRows(one *controlv1.Peer) []string {
	state := one.State + " for " + human.Age(time.Since(one.Since.AsTime()))
	if one.Reason != "" {
		state += ", " + one.Reason
	}
	rows := []string{"name\t" + one.Name, "peer\t" + one.PeerId, "state\t" + state, "site\t" + dash(one.Site), "address\t" + dash(one.Address),
		"connected\t" + map[bool]string{true: "yes", false: "no"}[one.Connected]}
	f := one.Facts
	if f == nil {
		return rows
	}
	return append(rows, "version\t"+f.Version, "platform\t"+f.OsFamily+", "+strings.Join(f.Isa, " "), "lends\t"+lends(one),
		fmt.Sprintf("memory\t%s of %s free", human.Bytes(f.MemoryFreeBytes), human.Bytes(f.MemoryBytes)),
		"network\t"+dash(f.Network), "tools\t"+dash(f.Fingerprint), "clock\t"+ahead(f.ClockAhead.AsDuration()))
}

// ahead is a difference of clocks in words.
func ahead(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d > 0:
		return d.String() + " ahead of this node's"
	case d < 0:
		return (-d).String() + " behind this node's"
	}
	return "as this node's"
}
