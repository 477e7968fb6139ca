package node

import (
	"testing"

	"github.com/buildmesh/buildmesh/mesh/facts"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// TestTop: a node sees who uses its machine and the others', its own actions and where they run, and the bytes between; and
// it counts what the mesh can run at once.
func TestTop(t *testing.T) {
	p := newPair(t)
	p.ana.opened(t, p.ana.action(t, "sleep 997"))
	eventually(t, "ben runs one for ana", func() bool { return p.ben.lending.guests.Load() == 1 })
	var top *controlv1.TopResponse
	eventually(t, "ana sees both", func() bool {
		top = p.ana.top(t.Context())
		return len(top.Machines) == 2 && top.Machines[1].Answered && len(top.Machines[1].Shares) == 1 && len(top.Flights) == 2 && top.Flights[1].Worker == "ben"
	})
	if m := top.Machines[0]; m.Name != "ana" || !m.Self || m.Cores != 1 || m.Free != 0 || len(m.Shares) != 1 || m.Shares[0].Name != "ana" {
		t.Errorf("ana: %v", m)
	}
	if m := top.Machines[1]; m.Name != "ben" || m.Cores != 1 || m.Shares[0].Name != "ana" || m.Shares[0].Actions != 1 {
		t.Errorf("ben: %v", m)
	}
	if top.BytesIn == 0 || top.BytesOut == 0 || top.Mesh == "" {
		t.Errorf("%v", top)
	}
	if seen := p.ben.top(t.Context()); len(seen.Flights) != 0 || len(seen.Machines[0].Shares) != 1 || seen.Machines[0].Shares[0].Name != "ana" {
		t.Errorf("ben sees %v", seen)
	}
	if jobs := p.ana.jobs(); jobs.Jobs != 4 || len(jobs.Machines) != 2 || jobs.Machines[1].Excluded != "" { // two cores and two on their way
		t.Errorf("%v", jobs)
	}
	if _, err := (lendingAnswers{lending: p.ben.lending}).Pause(t.Context(), &controlv1.PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ana counts on herself alone", func() bool { jobs := p.ana.jobs(); return jobs.Jobs == 3 && jobs.Machines[1].Excluded != "" })
	for _, f := range p.ana.machine.flights.List() {
		f.Cancel()
	}
	eventually(t, "both say how ben is", func() bool {
		here, there := p.ben.top(t.Context()).Machines[0].State, p.ana.top(t.Context()).Machines[1].State
		return here == "paused" && there == here
	})
	p.ben.stop()
	eventually(t, "ben is gone", func() bool { return len(p.ana.jobs().Machines) == 1 || !p.ana.top(t.Context()).Machines[1].Answered })
}

// TestStanding: what a member says of itself, in a person's words.
func TestStanding(t *testing.T) {
	for _, c := range []struct {
		state  facts.State
		reason string
		want   string
	}{
		{facts.Ready, "", ""},
		{facts.Ready, "somebody uses it", "throttled: somebody uses it"},
		{facts.Paused, "on battery", "paused: on battery"},
		{facts.Draining, "on battery", "draining: on battery"},
		{facts.CacheOnly, "runs no actions of others", "runs no actions of others"},
		{facts.CacheOnly, "", "cache only"},
	} {
		if got := standing(facts.Facts{State: c.state, Reason: c.reason}); got != c.want {
			t.Errorf("%v, %q: %q, want %q", c.state, c.reason, got, c.want)
		}
	}
}

// TestJobsFor: a quarter more than the cores, at least two, whatever peers claim.
func TestJobsFor(t *testing.T) {
	for cores, want := range map[float64]int64{0: 2, 1: 3, 4: 6, 8.5: 10, 40: 50, 1e18: 1<<20 + 1<<18} {
		if got := jobsFor(cores); got != want {
			t.Errorf("%g cores: %d jobs, want %d", cores, got, want)
		}
	}
}
