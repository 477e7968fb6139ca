package onehop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// Budget is how long one round of Find waits for a member's answer.
const Budget = 50 * time.Millisecond

// patience is how long Announce and Forget wait for one.
const patience = 5 * time.Second

// Locator finds through the indexes of all members. It implements locate.Locator. Make it with New.
type Locator struct {
	self    peer.ID
	index   *Index
	members locate.Members
	dialer  locate.Dialer

	mu        sync.Mutex // guards everything below
	ids       []peer.ID  // that the last ring was made of, as settled gave them
	spare     []peer.ID  // room for those of now
	last      ring
	announced map[cid.Key]struct{}
	slow      map[peer.ID]time.Time // members that did not answer, asked last until then
}

// slowFor is how long a member that did not answer is asked last.
const slowFor = 5 * time.Second

// New makes a locator whose own part of the mesh's index is index.
func New(self peer.ID, index *Index, members locate.Members, dialer locate.Dialer) *Locator {
	return &Locator{self: self, index: index, members: members, dialer: dialer,
		announced: map[cid.Key]struct{}{}, slow: map[peer.ID]time.Time{}}
}

// Self is the node whose locator this is.
func (l *Locator) Self() peer.ID { return l.self }

// ring is the ring of those who are settled now, made anew only when they are others than the last time.
func (l *Locator) ring() ring {
	members := l.members.Members()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = settled(l.spare[:0], l.self, members)
	if !slices.Equal(l.spare, l.ids) {
		l.ids, l.spare = l.spare, l.ids
		l.last = newRing(l.ids)
	}
	return l.last
}

// Keeper is the first of the members a key belongs to, this node among them.
func (l *Locator) Keeper(k cid.Key) peer.ID { return l.ring().replicas(k)[0] }

// Announce implements locate.Locator. Replicas that cannot be reached learn of the keys later.
func (l *Locator) Announce(ctx context.Context, keys []cid.Key) error {
	l.mu.Lock()
	for _, k := range keys {
		l.announced[k] = struct{}{}
	}
	l.mu.Unlock()
	return l.tell(ctx, keys, l.ring().replicas, l.announce)
}

// Forget implements locate.Locator.
func (l *Locator) Forget(ctx context.Context, keys []cid.Key) error {
	l.mu.Lock()
	for _, k := range keys {
		delete(l.announced, k)
	}
	l.mu.Unlock()
	return l.tell(ctx, keys, l.ring().replicas, l.forget)
}

// announce tells one member, or this node's own index.
func (l *Locator) announce(ctx context.Context, to peer.ID, keys []cid.Key) error {
	if to == l.self {
		l.index.Note(l.self, keys, time.Now())
		return nil
	}
	client, err := l.client(ctx, to)
	if err != nil {
		return err
	}
	_, err = client.Announce(ctx, &contentv1.AnnounceRequest{Keys: wireKeys(keys)})
	return err
}

// forget tells one member, or this node's own index.
func (l *Locator) forget(ctx context.Context, to peer.ID, keys []cid.Key) error {
	if to == l.self {
		l.index.Forget(l.self, keys)
		return nil
	}
	client, err := l.client(ctx, to)
	if err != nil {
		return err
	}
	_, err = client.Forget(ctx, &contentv1.ForgetRequest{Keys: wireKeys(keys)})
	return err
}

func (l *Locator) client(ctx context.Context, id peer.ID) (contentv1.ContentClient, error) {
	conn, err := l.dialer.Control(ctx, id)
	if err != nil {
		return nil, err
	}
	return contentv1.NewContentClient(conn), nil
}

// tell sends each member the keys that belong to it, all members at once. It fails when nobody could be
// told.
func (l *Locator) tell(ctx context.Context, keys []cid.Key, owners func(cid.Key) []peer.ID,
	send func(context.Context, peer.ID, []cid.Key) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	parts := map[peer.ID][]cid.Key{}
	for _, k := range keys {
		for _, id := range owners(k) {
			parts[id] = append(parts[id], k)
		}
	}
	errs := make(chan error, len(parts))
	for id, part := range parts {
		go func() {
			errs <- locate.Batches(part, func(_ int, piece []cid.Key) error { return send(ctx, id, piece) })
		}()
	}
	var failed []error
	for range parts {
		if err := <-errs; err != nil {
			failed = append(failed, err)
		}
	}
	if len(parts) > 0 && len(failed) == len(parts) {
		return fmt.Errorf("tell the index: %w", errors.Join(failed...))
	}
	return ctx.Err()
}

// Find implements locate.Locator.
func (l *Locator) Find(ctx context.Context, keys []cid.Key) ([][]peer.ID, error) {
	found := make([][]peer.ID, len(keys))
	left := make([]int, len(keys)) // places of the keys nobody was found for
	for i := range left {
		left[i] = i
	}
	r := l.ring()
	replicas := make([][]peer.ID, len(keys))
	for i, k := range keys {
		replicas[i] = l.answering(r.replicas(k))
	}
	answered := len(keys) == 0
	for round := 0; round < R && len(left) > 0 && ctx.Err() == nil; round++ {
		parts := map[peer.ID][]int{}
		for _, i := range left {
			if round < len(replicas[i]) {
				id := replicas[i][round]
				parts[id] = append(parts[id], i)
			}
		}
		if l.ask(ctx, keys, parts, found) {
			answered = true
		}
		left = slices.DeleteFunc(left, func(i int) bool { return len(found[i]) > 0 })
	}
	if !answered {
		return nil, fmt.Errorf("ask the index: nobody answered: %w", context.Cause(ctx))
	}
	return found, nil
}

// answering puts members that did not answer just now last.
func (l *Locator) answering(ids []peer.ID) []peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.slow) == 0 {
		return ids
	}
	now := time.Now()
	slices.SortStableFunc(ids, func(a, b peer.ID) int {
		return boolInt(now.Before(l.slow[a])) - boolInt(now.Before(l.slow[b]))
	})
	return ids
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ask has every member answer for its keys, given by place, and reports whether anyone did.
func (l *Locator) ask(ctx context.Context, keys []cid.Key, parts map[peer.ID][]int, found [][]peer.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, Budget)
	defer cancel()
	var asking sync.WaitGroup
	answers := make(chan peer.ID, len(parts))
	for id, places := range parts {
		asking.Go(func() {
			part := make([]cid.Key, len(places))
			for i, p := range places {
				part[i] = keys[p]
			}
			some, err := l.askOne(ctx, id, part)
			l.answered(id, err)
			if err != nil {
				return
			}
			for i, p := range places { // no other member was asked for these
				found[p] = some[i]
			}
			answers <- id
		})
	}
	asking.Wait()
	return len(answers) > 0
}

// answered notes whether a member answers.
func (l *Locator) answered(id peer.ID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.slow, id)
		return
	}
	now := time.Now()
	maps.DeleteFunc(l.slow, func(_ peer.ID, until time.Time) bool { return now.After(until) }) // else those who have left would stay
	l.slow[id] = now.Add(slowFor)
}

// askOne asks one member, or this node's own index.
func (l *Locator) askOne(ctx context.Context, id peer.ID, keys []cid.Key) ([][]peer.ID, error) {
	if id == l.self {
		return l.index.Find(l.self, keys), nil
	}
	client, err := l.client(ctx, id)
	if err != nil {
		return nil, err
	}
	found := make([][]peer.ID, 0, len(keys))
	err = locate.Batches(keys, func(_ int, piece []cid.Key) error {
		answer, err := client.Find(ctx, &contentv1.FindRequest{Keys: wireKeys(piece)})
		if err != nil {
			return err
		}
		if len(answer.Found) != len(piece) {
			return fmt.Errorf("asked for %d keys, got %d answers", len(piece), len(answer.Found))
		}
		for _, p := range answer.Found {
			found = append(found, l.peers(p.Peers))
		}
		return nil
	})
	return found, err
}

// peers reads what a member says about one key: distinct peers, this node left out.
func (l *Locator) peers(raw [][]byte) []peer.ID {
	var ids []peer.ID
	for _, b := range raw[:min(len(raw), MaxProviders)] {
		if len(b) != len(peer.ID{}) {
			continue
		}
		if id := peer.ID(b); id != l.self && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// wireKeys gives keys as messages carry them.
func wireKeys(keys []cid.Key) [][]byte {
	raw := make([][]byte, len(keys))
	for i := range keys {
		raw[i] = keys[i][:]
	}
	return raw
}
