package merge

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// peers of these tests.
var ana, ben, cleo = peer.ID{1}, peer.ID{2}, peer.ID{3}

// said is one thing a board hears, and the answer it must give.
type said struct {
	at      time.Duration
	by      peer.ID
	end     string // "made", "ended", "gone" or "expire"; "": it begins
	despite peer.ID
	earlier peer.ID // wanted
}

// TestBoard: who is named as the one that began before, in the order in which the board hears.
func TestBoard(t *testing.T) {
	for _, c := range []struct {
		name string
		said []said
		left int // notices at the end
	}{
		{"the first one counts", []said{{by: ana}, {by: ben, earlier: ana}, {by: cleo, earlier: ana}}, 1},
		{"who says it again is not told of itself", []said{{by: ana}, {by: ana}, {by: ben, earlier: ana}}, 1},
		{"it counts until it lapses", []said{{by: ana}, {at: TTL - 1, by: ben, earlier: ana}, {at: TTL, by: ben}, {at: TTL, by: ana, earlier: ben}}, 1},
		{"said again it counts longer", []said{{by: ana}, {at: TTL - 1, by: ana}, {at: 2*TTL - 2, by: ben, earlier: ana}, {at: 2*TTL - 1, by: ben}}, 1},
		{"over, with nothing to have", []said{{by: ana}, {by: ana, end: "ended"}, {by: ben}}, 1},
		{"the end of another's run changes nothing", []said{{by: ana}, {by: ben, end: "ended"}, {by: cleo, earlier: ana}}, 1},
		{"a result is told of for long", []said{{by: ana}, {by: ana, end: "made"}, {at: MadeFor - 1, by: ben, earlier: ana}, {at: MadeFor, by: ben}}, 1},
		{"a result takes the place of a run", []said{{by: ana}, {by: ben, end: "made"}, {by: cleo, earlier: ben}, {by: ana, end: "ended"}, {by: cleo, earlier: ben}}, 1},
		{"despite the one that brought nothing", []said{{by: ana}, {by: ben, earlier: ana}, {by: ben, despite: ana}, {by: cleo, despite: ana, earlier: ben}}, 1},
		{"despite another than the one that runs it", []said{{by: ana}, {by: ben, despite: cleo, earlier: ana}}, 1},
		{"gone", []said{{by: ana}, {by: ana, end: "gone"}, {by: ben}, {by: ana, end: "gone"}, {by: cleo, earlier: ben}}, 1},
		{"what has lapsed is forgotten", []said{{by: ana}, {at: TTL - 1, end: "expire"}, {at: TTL - 1, by: ben, earlier: ana}, {at: TTL, end: "expire"}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, begin, k := NewBoard(), time.Now(), Key{7}
			for i, s := range c.said {
				now := begin.Add(s.at)
				switch s.end {
				case "":
					if earlier := b.Begin(now, s.by, k, s.despite); earlier != s.earlier {
						t.Errorf("%d: %x began before, want %x", i, earlier[:1], s.earlier[:1])
					}
				case "gone":
					b.Drop(s.by)
				case "expire":
					b.Expire(now)
				default:
					b.End(now, s.by, k, s.end == "made")
				}
			}
			if len(b.notes) != c.left {
				t.Errorf("%d notices are left, want %d", len(b.notes), c.left)
			}
		})
	}
}

// keyNumber is one of many keys.
func keyNumber(n int) (k Key) {
	binary.BigEndian.PutUint64(k[:], uint64(n))
	return k
}

// TestBoardIsBounded: who says too much is not heard, nobody else is hurt by it, and all of them together fill no memory.
func TestBoardIsBounded(t *testing.T) {
	b, now := NewBoard(), time.Now()
	for i := range MaxPerPeer + 10 {
		b.End(now, ana, keyNumber(i), true)
	}
	if len(b.notes) != MaxPerPeer {
		t.Errorf("%d notices of one peer", len(b.notes))
	}
	b.Begin(now, ben, keyNumber(MaxPerPeer), peer.ID{})
	if earlier := b.Begin(now, cleo, keyNumber(MaxPerPeer), peer.ID{}); earlier != ben {
		t.Errorf("beside one that says too much, %x began before", earlier[:1])
	}
	for n := range MaxNotices / MaxPerPeer {
		for i := range MaxPerPeer {
			b.Begin(now, peer.ID{9, byte(n)}, keyNumber((n+2)*MaxPerPeer+i), peer.ID{})
		}
	}
	if len(b.notes) != MaxNotices {
		t.Errorf("%d notices of all", len(b.notes))
	}
	b.Expire(now.Add(MadeFor))
	if len(b.notes) != 0 || len(b.counts) != 0 {
		t.Errorf("%d notices and %d counts are left", len(b.notes), len(b.counts))
	}
}

// BenchmarkBoard is one action's begin and end on a board with so many notices.
func BenchmarkBoard(b *testing.B) {
	for _, size := range []int{100, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			board, now := NewBoard(), time.Now()
			for i := range size {
				board.Begin(now, peer.ID{byte(i)}, keyNumber(i), peer.ID{})
			}
			for i := 0; b.Loop(); i++ {
				k := keyNumber(size + i%1000)
				board.Begin(now, ana, k, peer.ID{})
				board.End(now, ana, k, false)
			}
		})
	}
}
