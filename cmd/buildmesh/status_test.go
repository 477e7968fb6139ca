package main

import (
	"slices"
	"testing"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestFlightRows: status says what is under way and where; a member's name cannot draw on the terminal.
func TestFlightRows(t *testing.T) {
	got := flightRows([]*controlv1.Flight{
		{Stage: "running", Age: durationpb.New(3 * time.Second), Worker: "b\x1b[31men", Mnemonic: "Genrule", Target: "//:a"},
		{Stage: "queued", Age: durationpb.New(20 * time.Millisecond)},
		{Stage: "queued", Age: durationpb.New(10 * time.Millisecond), Words: "sh -c \x1b[2Jmake"},
	})
	want := []string{"STAGE\tAGE\tON\tMNEMONIC\tTARGET", "running\t3 s\tben\tGenrule\t//:a", "queued\t20 ms\t-\t-\t-", "queued\t10 ms\t-\t-\tsh -c make"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestJobsRows: what each machine adds to the number, or why it adds nothing.
func TestJobsRows(t *testing.T) {
	got := jobsRows(&controlv1.JobsResponse{Machines: []*controlv1.Capacity{{Name: "ana", Cores: 2}, {Name: "ben", Cores: 4, Excluded: "paused"}}}, false)
	want := []string{"MACHINE\tCORES", "ana\t2", "ben\t4\tnot counted: paused", "one action for each core, and a quarter more, at least two, that are on their way"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
