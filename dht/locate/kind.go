package locate

import (
	"sync"
	"time"
)

// Kind is a way to find content.
type Kind int

// The kinds, by the size of the mesh they are for.
const (
	Summaries  Kind = iota // everybody has the summary of everybody at its site: a miss costs no message
	OneHop                 // everybody knows everybody: a miss costs one message
	OneHopNear             // the same within one of several sites; other sites are found by their bridges' summaries
	Kad                    // nobody needs to know everybody: a miss costs several
)

// Up to how many other members a kind is for. A mesh that has outgrown one comes back to it at seven eighths of that, so
// that laptops which come and go do not have everything announced anew all day.
const (
	SummariesUpTo = 64   // in a mesh of one site
	SiteUpTo      = 250  // at one of several sites: summaries too, of the others only their bridges'
	OneHopUpTo    = 1000 // in all

	chooseEvery = time.Second // how often members are counted
)

// next is the kind for a mesh with so many other members near this node and in all, where kind k is in use.
func (k Kind) next(near, all int) Kind {
	bound := func(outgrown bool, most int) int {
		if outgrown {
			return most * 7 / 8
		}
		return most
	}
	summaries, index := SummariesUpTo, OneHop
	if near < all {
		summaries, index = SiteUpTo, OneHopNear
	}
	switch {
	case near <= bound(k > Summaries, summaries):
		return Summaries
	case all <= bound(k == Kad, OneHopUpTo):
		return index
	}
	return Kad
}

// Sizer chooses the kind for a mesh that grows and shrinks. Safe for concurrent use.
type Sizer struct {
	Sites Sites

	mu     sync.Mutex // guards what follows
	kind   Kind
	chosen time.Time
}

// Kind is the one for the mesh as it is now, or was a second ago.
func (s *Sizer) Kind() Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.chosen.IsZero() || now.Sub(s.chosen) >= chooseEvery {
		s.kind, s.chosen = s.kind.next(len(s.Sites.Near()), len(s.Sites.All.Members())), now
	}
	return s.kind
}
