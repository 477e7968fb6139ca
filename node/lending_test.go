package node

import (
	"strings"
	"testing"

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
