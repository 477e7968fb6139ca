package locate_test

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// A mesh that grows outgrows one kind after the other at the bounds, and one that shrinks comes back to each somewhat below.
func TestSizer(t *testing.T) {
	type size struct {
		near, far int
		want      locate.Kind
	}
	for name, sizes := range map[string][]size{
		"one site": {
			{0, 0, locate.Summaries}, {64, 0, locate.Summaries}, {65, 0, locate.OneHop}, {64, 0, locate.OneHop}, {57, 0, locate.OneHop}, {56, 0, locate.Summaries},
			{1000, 0, locate.OneHop}, {1001, 0, locate.Kad}, {1000, 0, locate.Kad}, {876, 0, locate.Kad}, {875, 0, locate.OneHop}, {1000, 0, locate.OneHop}, {1001, 0, locate.Kad},
		},
		"at once, both ways": {{2000, 0, locate.Kad}, {10, 0, locate.Summaries}},
		"several sites": {
			{250, 1, locate.Summaries}, {251, 1, locate.OneHopNear}, {219, 1, locate.OneHopNear}, {218, 1, locate.Summaries},
			{251, 749, locate.OneHopNear}, {251, 750, locate.Kad}, {251, 625, locate.Kad}, {251, 624, locate.OneHopNear},
			{251, 0, locate.OneHop}, {251, 1, locate.OneHopNear},
		},
		"many small sites":         {{250, 5000, locate.Summaries}},
		"the other sites are gone": {{200, 10, locate.Summaries}, {200, 0, locate.OneHop}, {200, 10, locate.Summaries}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now size
				s := &locate.Sizer{Sites: locate.Sites{Self: func() locate.Member { return locate.Member{Site: "here"} }, All: locate.Only(func() []locate.Member {
					return append(crowd("here", now.near), crowd("there", now.far)...)
				})}}
				for _, now = range sizes {
					time.Sleep(time.Second)
					if got := s.Kind(); got != now.want {
						t.Errorf("with %d near and %d far: kind %d, want %d", now.near, now.far, got, now.want)
					}
				}
				last := s.Kind()
				if now = (size{}); s.Kind() != last {
					t.Error("members are counted more than once a second")
				}
			})
		})
	}
}

// crowd is n members at a site.
func crowd(name string, n int) []locate.Member {
	all := make([]locate.Member, n)
	for i := range all {
		var id peer.ID
		binary.BigEndian.PutUint32(id[copy(id[:], name):], uint32(i))
		all[i] = locate.Member{ID: id, Site: name}
	}
	return all
}
