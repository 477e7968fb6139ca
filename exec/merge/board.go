package merge

import (
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Bounds of a Board.
const (
	// TTL is how long a notice counts that is not renewed.
	TTL = 15 * time.Second
	// MadeFor is how long a board tells who has made a result: actions that waited for a slot while it was made find it.
	MadeFor = 10 * time.Minute
	// MaxPerPeer is how many notices of one peer there can be, and MaxNotices how many of all. What is above them is not
	// noted: its action runs wherever it is asked for.
	MaxPerPeer, MaxNotices = 1 << 15, 1 << 17
)

// Key is what the result of an action is known by among the members: equal for equal actions that see the same.
type Key [32]byte

// Board is who runs what, or has made it lately: the first that said so. It is not safe for concurrent use.
type Board struct {
	notes  map[Key]note
	counts map[peer.ID]int
}

// note is one peer's word about one action.
type note struct {
	by    peer.ID
	until time.Time
}

// NewBoard makes an empty board.
func NewBoard() *Board { return &Board{notes: map[Key]note{}, counts: map[peer.ID]int{}} }

// Begin notes that a peer runs an action, or still does, unless another began before: that one is given. What another said
// does not count when it lapsed, or when it is the peer despite whom this one runs it.
func (b *Board) Begin(now time.Time, by peer.ID, k Key, despite peer.ID) (earlier peer.ID) {
	if n, found := b.notes[k]; found && n.by != by && n.by != despite && now.Before(n.until) {
		return n.by
	}
	b.put(k, note{by: by, until: now.Add(TTL)})
	return peer.ID{}
}

// End notes that a run is over. One that made a result takes the place of whatever stood there; of the others only the
// peer's own word is taken off.
func (b *Board) End(now time.Time, by peer.ID, k Key, made bool) {
	switch {
	case made:
		b.put(k, note{by: by, until: now.Add(MadeFor)})
	case b.notes[k].by == by:
		b.remove(k)
	}
}

// put replaces what stands under a key, unless there is too much already.
func (b *Board) put(k Key, n note) {
	b.remove(k)
	if b.counts[n.by] >= MaxPerPeer || len(b.notes) >= MaxNotices {
		return
	}
	b.notes[k] = n
	b.counts[n.by]++
}

func (b *Board) remove(k Key) {
	n, found := b.notes[k]
	if !found {
		return
	}
	delete(b.notes, k)
	if b.counts[n.by]--; b.counts[n.by] == 0 {
		delete(b.counts, n.by)
	}
}

// Drop forgets a peer that is gone.
func (b *Board) Drop(id peer.ID) {
	if b.counts[id] == 0 {
		return
	}
	for k, n := range b.notes {
		if n.by == id {
			b.remove(k)
		}
	}
}

// Expire forgets what has lapsed.
func (b *Board) Expire(now time.Time) {
	for k, n := range b.notes {
		if !now.Before(n.until) {
			b.remove(k)
		}
	}
}
