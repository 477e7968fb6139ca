package discover

import (
	"slices"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

const (
	maxFinds     = 1024
	maxStrangers = 64
	// again is how long a find that did not change is not told again.
	again = 20 * time.Second
	// fresh is how long a find or stranger counts as being there.
	fresh = 5 * time.Minute
	// answersASecond and findsASecond bound what others can make this node do.
	answersASecond = 20
	findsASecond   = 50
)

// Stranger is another mesh on the same network.
type Stranger struct {
	Label string
	Mesh  string // its public name
	Peers int    // of it seen lately, at most maxFinds
	At    time.Time
}

// finds is what was told, and what follows from it. It reads no clock.
type finds struct {
	label     string
	self      peer.ID
	own       map[peer.ID]Find
	strangers map[string]map[peer.ID]Find
	answers   budget
	news      budget
	prunes    budget
	echo      time.Time // this node heard its own beacon
	others    time.Time // it heard somebody else's
}

func newFinds(label string, self peer.ID) *finds {
	return &finds{label: label, self: self, own: make(map[peer.ID]Find), strangers: make(map[string]map[peer.ID]Find)}
}

// take notes a find and says whether it is news worth trying: of this mesh, and new, moved or long not told.
func (f *finds) take(found Find, now time.Time) (news bool) {
	found.At = now
	if found.Peer == f.self {
		if found.By == byBeacon {
			f.echo = now
		}
		return false
	}
	f.others = now
	f.moved(found)
	if found.Label != f.label {
		f.stranger(found, now)
		return false
	}
	old, known := f.own[found.Peer]
	if known && old.Addr == found.Addr && old.Gossip == found.Gossip && now.Sub(old.At) < again {
		return false
	}
	if !f.news.spend(findsASecond, now) {
		return false
	}
	if !known && len(f.own) >= maxFinds {
		f.dropOldest(now)
	}
	f.own[found.Peer] = found
	return true
}

// dropOldest makes room for one.
func (f *finds) dropOldest(now time.Time) {
	oldest, at := peer.ID{}, now.Add(time.Second)
	for id, one := range f.own {
		if one.At.Before(at) {
			oldest, at = id, one.At
		}
	}
	delete(f.own, oldest)
}

// moved drops a node from the other meshes it was in, so that one that everybody has left is not listed on.
func (f *finds) moved(found Find) {
	for label, mesh := range f.strangers {
		if label == found.Label {
			continue
		}
		if delete(mesh, found.Peer); len(mesh) == 0 {
			delete(f.strangers, label)
		}
	}
}

// stranger notes a node of another mesh.
func (f *finds) stranger(found Find, now time.Time) {
	mesh := f.strangers[found.Label]
	if mesh == nil {
		if len(f.strangers) >= maxStrangers && f.prunes.spend(1, now) {
			f.prune(now)
		}
		if len(f.strangers) >= maxStrangers {
			return
		}
		mesh = make(map[peer.ID]Find)
		f.strangers[found.Label] = mesh
	}
	if _, known := mesh[found.Peer]; known || len(mesh) < maxFinds/maxStrangers {
		mesh[found.Peer] = found
	}
}

// prune drops what is not fresh.
func (f *finds) prune(now time.Time) {
	for label, mesh := range f.strangers {
		for id, one := range mesh {
			if now.Sub(one.At) > fresh {
				delete(mesh, id)
			}
		}
		if len(mesh) == 0 {
			delete(f.strangers, label)
		}
	}
}

// list gives the finds of this mesh that are fresh, by time, the latest first.
func (f *finds) list(now time.Time) []Find {
	var out []Find
	for _, one := range f.own {
		if now.Sub(one.At) <= fresh {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b Find) int { return b.At.Compare(a.At) })
	return out
}

// listStrangers gives the other meshes that are fresh, by name.
func (f *finds) listStrangers(now time.Time) []Stranger {
	f.prune(now)
	var out []Stranger
	for label, mesh := range f.strangers {
		s := Stranger{Label: label, Peers: len(mesh)}
		for _, one := range mesh {
			if one.At.After(s.At) {
				s.Mesh, s.At = one.Mesh, one.At
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Stranger) int { return strings.Compare(a.Mesh+a.Label, b.Mesh+b.Label) })
	return out
}

// budget allows so many a second.
type budget struct {
	second time.Time
	spent  int
}

func (b *budget) spend(most int, now time.Time) bool {
	if now.Sub(b.second) >= time.Second || now.Before(b.second) {
		b.second, b.spent = now, 0
	}
	b.spent++
	return b.spent <= most
}
