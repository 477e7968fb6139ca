package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/onehop"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/exec/lease"
	"github.com/buildmesh/buildmesh/mesh/facts"
	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/presence"
	"github.com/buildmesh/buildmesh/mesh/roster"
	"github.com/buildmesh/buildmesh/mesh/transport"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// The addresses of a lab's node.
var (
	meshAddress   = netip.MustParseAddrPort("0.0.0.0:8982")
	gossipAddress = netip.MustParseAddrPort("0.0.0.0:8983")
)

// knownWithin is how long the others may take to know a rogue.
const knownWithin = 30 * time.Second

// rogue is a member as every other, but for its role.
type rogue struct {
	role     role
	identity *peer.Identity
	seat     *member.Seat
	links    *transport.Transport
	presence *presence.Presence
	store    *cas.Store
	receipts *receipt.Store
	summary  *summary.Publisher
	executor *lease.Executor // of a role that lends
	keys     []cid.Key       // of the results it has
	claimed  []cid.Key       // of those it says it has

	closing []func() error
	serving sync.WaitGroup
}

// sit takes the seat of the node that keeps everything in dir and does not run.
func sit(dir string, part role) (r *rogue, err error) {
	r = &rogue{role: part}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	return r, r.take(dir)
}

// take opens everything of a member.
func (r *rogue) take(dir string) (err error) {
	if r.identity, err = peer.LoadFile(filepath.Join(dir, "state", peer.File)); err != nil {
		return err
	}
	meshDir := filepath.Join(dir, "state", "mesh")
	if r.seat, err = member.Open(meshDir, r.identity, member.Options{}); err != nil {
		return err
	}
	if r.store, err = cas.Open(filepath.Join(dir, "cache", "store"), cas.Options{}); err != nil {
		return err
	}
	r.closing = append(r.closing, r.store.Close)
	if r.receipts, err = receipt.Open(filepath.Join(dir, "cache", "receipts"), receipt.Options{}); err != nil {
		return err
	}
	r.closing = append(r.closing, r.receipts.Close)
	r.links, err = transport.Open(transport.Options{Identity: r.identity, Gate: hello.NewDoor(r.seat, nil, nil), Listen: meshAddress})
	if err != nil {
		return err
	}
	r.closing = append(r.closing, r.links.Close)
	if err := r.serve(); err != nil {
		return err
	}
	r.presence, err = presence.Open(presence.Options{
		Dir: meshDir, Identity: r.identity, Seat: r.seat, Links: r.links, Caller: transport.Caller, Listen: gossipAddress,
		Learned: r.links.Learn, Contacts: func() []hello.Contact { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	r.closing = append(r.closing, r.presence.Close)
	r.serving.Go(func() { _ = r.links.Serve() })
	return nil
}

// serve registers the services of a member, as the role has them.
func (r *rogue) serve() error {
	hello.Register(r.links.ControlServer(), r.seat, transport.Caller)
	guard, everything := share.NewGuard(transport.Caller, 0), new(share.Private)
	spoiled := &blobs{Blobs: share.NewBlobs(r.store, guard, everything), rogue: r}
	spoiled.register(r.links.BulkServer())
	noted := onehop.NewIndex()
	r.summary = summary.NewPublisher(32)
	contentv1.RegisterContentServer(r.links.ControlServer(), &content{rogue: r, Content: &share.Content{
		Guard: guard, Publisher: r.summary, Index: noted, Known: results{r},
		OneHop: onehop.New(r.identity.ID(), noted, locate.Only(func() []locate.Member { return nil }), r.links),
	}})
	if r.role.lends != nil {
		r.lend(r.links.ControlServer())
	}
	if err := r.receipts.Keys(func(k cid.Key) error { r.keys = append(r.keys, k); return nil }); err != nil {
		return err
	}
	r.claimed = r.keys
	if r.role.claims != nil {
		var err error
		if r.claimed, err = r.role.claims(r); err != nil {
			return err
		}
	}
	return r.summary.Add(r.claimed)
}

// close leaves the mesh, last opened first closed.
func (r *rogue) close() {
	for _, end := range slices.Backward(r.closing) {
		_ = end() // the process ends next
	}
	r.serving.Wait()
}

// others are the members that are alive, by name.
func (r *rogue) others() []roster.Member {
	return slices.SortedFunc(slices.Values(r.presence.Roster.Now().In(roster.Alive)), func(a, b roster.Member) int { return cmp.Compare(a.Name, b.Name) })
}

// known waits until the others have told of themselves and name this member as a holder of what it claims to have.
func (r *rogue) known(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, knownWithin)
	defer cancel()
	expected := 0
	for _, c := range r.seat.Members() {
		if c.Peer != r.identity.ID() {
			expected++
		}
	}
	var last error
	for told := false; ; {
		last = nil
		for _, m := range r.others() {
			heard, found := r.presence.Book.Get(m.ID)
			if !found {
				last = fmt.Errorf("%s tells nothing of itself", m.Name)
				continue
			}
			if !told {
				r.presence.Board.Set(r.says(heard.Facts))
				told = true
			}
			if heard.Facts.Version != version { // another rogue follows nobody
				last = errors.Join(last, r.namedBy(ctx, m))
			}
		}
		if met := len(r.others()); met < expected || expected == 0 {
			last = errors.Join(last, fmt.Errorf("%d of %d members are in sight", met, expected))
		}
		if last == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not known within %v: %w", knownWithin, last)
		}
	}
}

// says is what this member tells of itself: what an honest one says of its machine, as the role bends it.
func (r *rogue) says(honest facts.Facts) facts.Facts {
	honest.Version, honest.Queued, honest.Reason = version, 0, ""
	if r.role.lends != nil {
		return r.role.lends.offers(honest)
	}
	honest.State = facts.CacheOnly
	return honest
}

// version is what a rogue says its program is: by it a scenario sees that its facts have come.
const version = "rogue"

// namedBy reports whether a member names this one as a holder of everything it claims to have, and of nothing else.
func (r *rogue) namedBy(ctx context.Context, m roster.Member) error {
	keys := slices.Concat(r.claimed, r.keys)
	if len(keys) == 0 {
		return nil
	}
	conn, err := r.links.Control(ctx, m.ID)
	if err != nil {
		return err
	}
	answer, err := contentv1.NewContentClient(conn).Results(ctx, &contentv1.ResultsRequest{Keys: rawKeys(keys)})
	if err != nil {
		return err
	}
	self := r.identity.ID()
	for i, a := range answer.Answers {
		named := slices.ContainsFunc(a.Holders, func(id []byte) bool { return slices.Equal(id, self[:]) })
		if named != slices.Contains(r.claimed, keys[i]) {
			return fmt.Errorf("%s does not have the summary yet", m.Name)
		}
	}
	return nil
}

// rawKeys are keys as messages have them.
func rawKeys(keys []cid.Key) [][]byte {
	raw := make([][]byte, len(keys))
	for i := range keys {
		raw[i] = keys[i][:]
	}
	return raw
}
