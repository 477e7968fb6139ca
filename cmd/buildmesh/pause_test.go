package main

import (
	"testing"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// TestLendingText: what is lent, why not more, and what changes it.
func TestLendingText(t *testing.T) {
	for _, c := range []struct {
		said *controlv1.LendingResponse
		want string
	}{
		{&controlv1.LendingResponse{State: "open"}, "lends all its slots to the mesh"},
		{&controlv1.LendingResponse{State: "open", Guests: 1}, "lends all its slots to the mesh; 1 action of others runs"},
		{&controlv1.LendingResponse{State: "throttled", Reason: "too hot", Guests: 2}, "lends half of its slots to the mesh: too hot; 2 actions of others run"},
		{&controlv1.LendingResponse{State: "closed", Reason: "on battery"}, "lends nothing: on battery"},
		{&controlv1.LendingResponse{State: "closed", Reason: "paused"}, "lends nothing: paused; lend again with: buildmesh resume"},
	} {
		if got := lendingText(c.said); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestUntilText: a moment to come is told with its day as soon as it could be taken for another.
func TestUntilText(t *testing.T) {
	now := time.Date(2026, 11, 26, 17, 0, 0, 0, time.UTC) // a Thursday
	for until, want := range map[time.Time]string{
		now.Add(time.Hour):       "18:00",
		now.Add(8 * time.Hour):   "Fri 01:00",
		now.Add(24 * time.Hour):  "Fri 17:00",
		now.Add(143 * time.Hour): "Wed 16:00",
		now.Add(144 * time.Hour): "2 December 2026, 17:00",
		now.AddDate(1, 0, 0):     "26 November 2027, 17:00",
	} {
		if got := untilText(until, now); got != want {
			t.Errorf("%v: got %q, want %q", until, got, want)
		}
	}
}
