package onehop

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// How the index is kept right.
const (
	// Grace is how long after members went their keys are announced elsewhere.
	Grace = 2 * time.Minute
	// Compare is how often a node compares its index with another's.
	Compare = 5 * time.Minute

	tendEvery = 5 * time.Second
	// maxNoted is how many records one comparison brings at most.
	maxNoted = 50_000
)

// standing is who was told of all keys of a node.
type standing struct {
	told   ring
	away   []peer.ID // of them, who was missing since, and does not know what was announced meanwhile
	shrunk time.Time // when the first of these went
}

// Run keeps the keys of this node where they belong, until ctx ends.
func (l *Locator) Run(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	s := standing{told: l.ring()}
	renewed, compared := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, r := time.Now(), l.ring()
		if now.Sub(renewed) > TTL/2 {
			l.index.Expire(now)
			// Nobody can be told: nobody could find anything either, and the next round tries again.
			_ = l.tell(ctx, l.own(), r.replicas, l.announce)
			renewed, s = now, standing{told: r}
		}
		if now.Sub(compared) > Compare {
			compared = now
			l.compare(ctx, r)
		}
		if s.told.equal(r) && len(s.away) == 0 {
			continue
		}
		if gone := lost(s.told.ids, r.ids); len(gone) > 0 {
			if len(s.away) == 0 {
				s.shrunk = now
			}
			s.away = append(s.away, lost(gone, s.away)...)
			if now.Sub(s.shrunk) < Grace {
				continue
			}
		}
		l.move(ctx, s, r)
		s = standing{told: r}
	}
}

// lost gives those of some members who are not among others.
func lost(some, others []peer.ID) []peer.ID {
	return slices.DeleteFunc(slices.Clone(some), func(id peer.ID) bool { return slices.Contains(others, id) })
}

// own lists what this node announced.
func (l *Locator) own() []cid.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := make([]cid.Key, 0, len(l.announced))
	for k := range l.announced {
		keys = append(keys, k)
	}
	return keys
}

// move announces this node's keys to those they belong to now and did not before, or who were away in between.
func (l *Locator) move(ctx context.Context, before standing, after ring) {
	_ = l.tell(ctx, l.own(), func(k cid.Key) []peer.ID {
		return lost(after.replicas(k), lost(before.told.replicas(k), before.away))
	}, l.announce) // who cannot be reached now is told with the next renewal
}

// compare takes from one other member what this node lacks of what belongs to both.
func (l *Locator) compare(ctx context.Context, r ring) {
	others := slices.DeleteFunc(slices.Clone(r.ids), func(id peer.ID) bool { return id == l.self })
	if len(others) == 0 {
		return
	}
	id := others[rand.IntN(len(others))]
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := l.client(ctx, id)
	if err != nil {
		return // the next comparison may be with another
	}
	shared := l.shared(r, id)
	answer, err := client.Reconcile(ctx, &contentv1.ReconcileRequest{Sums: l.index.sums(shared)})
	if err != nil {
		return
	}
	now := time.Now()
	for _, n := range answer.Noted[:min(len(answer.Noted), maxNoted)] {
		age := time.Duration(n.AgeMillis) * time.Millisecond
		if len(n.Key) != cid.KeySize || len(n.Peer) != len(peer.ID{}) || age < 0 || age > TTL {
			continue
		}
		if k := cid.Key(n.Key); shared(k) && slices.Contains(r.ids, peer.ID(n.Peer)) {
			l.index.Note(peer.ID(n.Peer), []cid.Key{k}, now.Add(-age))
		}
	}
}

// shared tells which keys belong to this node and to another.
func (l *Locator) shared(r ring, id peer.ID) func(cid.Key) bool {
	return func(k cid.Key) bool {
		replicas := r.replicas(k)
		return slices.Contains(replicas, l.self) && slices.Contains(replicas, id)
	}
}

// Differences serves a comparison for another member: the records of what belongs to both, where its
// sums differ from this node's.
func (l *Locator) Differences(id peer.ID, sums []uint64) []Record {
	if len(sums) != Buckets {
		return nil
	}
	return l.index.differing(sums, l.shared(l.ring(), id), maxNoted)
}
