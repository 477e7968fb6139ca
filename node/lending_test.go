package node

import (
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/node/power"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// TestPauseSurvivesRestart pauses a node, restarts it, and resumes: status says each time what is lent, and why.
func TestPauseSurvivesRestart(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	// This machine's own facts do not matter here.
	c := configured(t, dir, "lend.battery=lend", "lend.user=lend", "lend.heat=lend", "lend.metered=lend", "lend.cpu=0", "lend.reserve=0")
	n := start(t, c)
	if s := n.Snapshot().Lending; s.State != "open" || s.Reason != "" {
		t.Errorf("at first: %v", s)
	}
	answers := lendingAnswers{lending: n.lending}
	if _, err := answers.Pause(t.Context(), &controlv1.PauseRequest{Until: "tomorrow"}); err == nil || !strings.Contains(err.Error(), "2h") {
		t.Errorf("a time that means nothing: %v", err)
	}
	paused, err := answers.Pause(t.Context(), &controlv1.PauseRequest{Until: "2h"})
	if err != nil || paused.State != "closed" || paused.Reason != "paused" || paused.Until == nil {
		t.Fatalf("paused: %v, %v", paused, err)
	}
	n.stop()

	n = start(t, c)
	defer n.stop()
	if s := n.Snapshot().Lending; s.State != "closed" || s.Reason != "paused" {
		t.Errorf("after a restart: %v", s)
	}
	resumed, err := lendingAnswers{lending: n.lending}.Resume(t.Context(), &controlv1.ResumeRequest{})
	if err != nil || resumed.State != "open" || resumed.Until != nil {
		t.Errorf("resumed: %v, %v", resumed, err)
	}
}

// TestLendPolicy: each of the owner's settings leads to the wish of its name.
func TestLendPolicy(t *testing.T) {
	n := &Node{config: configured(t, t.TempDir(), "lend.battery=lend", "lend.user=close", "lend.heat=close", "lend.metered=throttle", "lend.cpu=70",
		"exec.cores=5", "lend.reserve=3GiB", "lend.hours=18:00-08:00", "lend.grace=7s")}
	want := power.Policy{
		Battery: power.Lend, User: power.Close, Heat: power.Close, Metered: power.Throttle, CPU: 0.7, Reserve: 3 << 30, Cores: 5,
		Hours: power.Hours{From: 18 * time.Hour, To: 8 * time.Hour}, Grace: 7 * time.Second, Calm: power.DefaultPolicy().Calm,
	}
	if got, err := n.lendPolicy(); err != nil || got != want {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	n.config.Lend.Hours = "at night"
	if _, err := n.lendPolicy(); err == nil || !strings.Contains(err.Error(), "lend.hours") {
		t.Errorf("hours that mean nothing: %v", err)
	}
}

// TestOwnActionsAreNoLoad: what the node's own actions use is counted and taken off what others use.
func TestOwnActionsAreNoLoad(t *testing.T) {
	n := executing(t, t.TempDir())
	if n.report.Groups == "none" {
		t.Skip("no control groups on this machine")
	}
	before, counted := n.actionUsage()
	if !counted {
		t.Fatal("it is not counted")
	}
	n.executed(t, n.action(t, "i=0; while test $i -lt 100000; do i=$((i+1)); done"))
	eventually(t, "the action's processor time is counted", func() bool {
		now, _ := n.actionUsage()
		return now > before
	})
}
