package main

import (
	"fmt"
	"strings"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// pauseVerb is `buildmesh pause`.
type pauseVerb struct {
	Until []string `arg:"" optional:"" help:"How long: 2h, or until 18:00; without it until buildmesh resume."`
	Now   bool     `help:"End what runs for others at once; otherwise it may finish."`
}

// Run stops lending this machine.
func (p *pauseVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Lending.Pause(v.ctx, &controlv1.PauseRequest{Until: strings.Join(p.Until, " "), Now: p.Now})
	if err != nil {
		return plain(err)
	}
	return v.tellLending(answer)
}

// resumeVerb is `buildmesh resume`.
type resumeVerb struct{}

// Run lends this machine again.
func (resumeVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Lending.Resume(v.ctx, &controlv1.ResumeRequest{})
	if err != nil {
		return plain(err)
	}
	return v.tellLending(answer)
}

// tellLending prints how much of this machine is lent.
func (v *verbContext) tellLending(l *controlv1.LendingResponse) error {
	_, err := fmt.Fprintln(v.out, lendingText(l))
	return err
}

// lendingText is the state of lending in one line.
func lendingText(l *controlv1.LendingResponse) string {
	var text string
	switch l.GetState() {
	case "open":
		text = "lends all its slots to the mesh"
	case "throttled":
		text = "lends half of its slots to the mesh: " + l.Reason
	case "draining":
		text = "lends nothing more: " + l.Reason
	default:
		text = "lends nothing: " + l.GetReason()
	}
	if l.GetUntil() != nil {
		text += " until " + untilText(l.Until.AsTime().Local(), time.Now())
	}
	switch n := l.GetGuests(); {
	case n == 1:
		text += "; 1 action of others runs"
	case n > 1:
		text += fmt.Sprintf("; %d actions of others run", n)
	}
	if l.GetReason() == "paused" {
		text += "; lend again with: buildmesh resume"
	}
	return text
}

// untilText is a moment to come: a time of today, a day of the coming week, or a date.
func untilText(until, now time.Time) string {
	switch days := until.Sub(now); {
	case until.YearDay() == now.YearDay() && days < 24*time.Hour:
		return until.Format("15:04")
	case days < 6*24*time.Hour:
		return until.Format("Mon 15:04")
	}
	return until.Format("2 January 2006, 15:04")
}
