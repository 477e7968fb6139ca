package summary

import (
	"context"
	"errors"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// ErrNoBridge means that others speak for this node's site now.
var ErrNoBridge = errors.New("this node is no bridge of its site")

// Bridge makes the summary of everything at this node's site, for the members of other ones, as long as this node
// is one of its bridges. Make it with NewBridge and run it with Run.
type Bridge struct {
	sites locate.Sites
	near  *Peers // this node among them, with the fingerprints themselves: filters cannot be united
	far   *Peers // of other sites, for those at this one
	site  *Publisher
}

// NewBridge makes a bridge of a node that has these summaries.
func NewBridge(sites locate.Sites, node *Locator, dialer locate.Dialer) *Bridge {
	own := node.Publisher
	b := &Bridge{sites: sites, site: NewPublisher(own.width), far: node.Peers}
	b.near = NewPeers(locate.Only(func() []locate.Member {
		if !sites.Bridge() {
			return nil
		}
		return append(sites.Near(), sites.Self())
	}), dialer)
	b.near.self = sites.Self
	b.near.union = &union{own: own, site: b.site, counts: map[uint64]uint16{}}
	return b
}

// Run follows everybody at this node's site while it is a bridge, until ctx ends.
func (b *Bridge) Run(ctx context.Context) { b.near.Run(ctx) }

// Follow is Publisher.Follow of everything at the site. Errors: ErrNoBridge.
func (b *Bridge) Follow(ctx context.Context, q *contentv1.SummaryRequest, send func(*contentv1.SummaryPart) error) error {
	if !b.sites.Bridge() {
		return ErrNoBridge
	}
	return b.site.Follow(ctx, q, send)
}

// Relay is Publisher.Follow of what comes from a bridge of another site. Errors: ErrNoBridge, also when nothing comes.
func (b *Bridge) Relay(ctx context.Context, of peer.ID, q *contentv1.SummaryRequest, send func(*contentv1.SummaryPart) error) error {
	r := b.far.relay(of)
	if r == nil || !b.sites.Bridge() {
		return ErrNoBridge
	}
	return follow(ctx, q, source{state: r.state}, send)
}

// union has one summary be of everything that several are of. The mutex of those guards it.
type union struct {
	own    *Publisher        // of what this node has
	site   *Publisher        // of everything
	counts map[uint64]uint16 // of how many members a fingerprint is
}

// add counts fingerprints of one member, each of which it had not.
func (u *union) add(fingerprints []uint64) {
	var fresh []uint64
	for _, f := range fingerprints {
		if u.counts[f]++; u.counts[f] == 1 {
			fresh = append(fresh, f)
		}
	}
	_ = u.site.add(fresh) // it fails for fingerprints that are not distinct, and these are
}

// remove counts them off.
func (u *union) remove(fingerprints []uint64) {
	var gone []uint64
	for _, f := range fingerprints {
		if u.counts[f]--; u.counts[f] == 0 {
			delete(u.counts, f)
			gone = append(gone, f)
		}
	}
	_ = u.site.remove(gone) // as in add
}

// replace counts a new base instead of all that a summary is of.
func (u *union) replace(s *summary, base []uint64) {
	u.add(base)
	old := s.filter.exact
	for f := range s.delta {
		if !s.filter.contains(f) {
			old = append(old, f)
		}
	}
	u.remove(old)
}
