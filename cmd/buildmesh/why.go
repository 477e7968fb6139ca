package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
)

// whyVerb is `buildmesh why`.
type whyVerb struct {
	Subject string `arg:"" optional:"" name:"action|target" help:"Begin of an action's hash, or a target such as //app:grep."`
	Last    bool   `help:"Tell of the last action."`
	All     bool   `help:"List every change instead of the first ten."`
	JSON    bool   `name:"json" help:"Print one JSON object, for programs."`
}

// Run prints how an action went and what differs from the last one like it.
func (w *whyVerb) Run(v *verbContext) error {
	if (w.Subject == "") != w.Last {
		return usageError{errors.New("why wants one of: an action's hash, a target, --last")}
	}
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Journal.Why(v.ctx, &controlv1.WhyRequest{Subject: w.Subject})
	if err != nil {
		return plain(err)
	}
	if w.JSON {
		text, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(answer)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(v.out, "%s\n", text)
		return err
	}
	shown := 10
	if w.All {
		shown = len(answer.Changes)
	}
	return v.table(whyRows(answer, time.Now()), changeRows(answer, shown, time.Now()), alsoRows(answer))
}

// whyRows is an entry in lines of label and value. The labels are the stages an action passes through.
func whyRows(w *controlv1.WhyResponse, now time.Time) []string {
	e := w.Entry
	rows := []string{"action\t" + aboutText(e) + ", " + ago(e, now) + " ago"}
	if e.Output != "" && e.Output != "." {
		rows = append(rows, "makes\t"+clean(e.Output))
	}
	rows = append(rows, "cache\t"+cacheText(w, now))
	if hit(e) {
		return append(rows, remarkRows(e, now)...)
	}
	rows = append(rows, placeRows(e)...)
	rows = append(rows, "time\t"+timeText(e.Timeline), "outcome\t"+outcomeText(e.Outcome)+outputsText(w))
	return append(rows, remarkRows(e, now)...)
}

func hit(e *journalv1.Entry) bool {
	v := e.GetCache().GetVerdict()
	return v == journalv1.Cache_VERDICT_HIT_HERE || v == journalv1.Cache_VERDICT_HIT_MEMBER
}

// aboutText names an action.
func aboutText(e *journalv1.Entry) string {
	hash, mnemonic, target := e.Action[:min(len(e.Action), 12)], clean(e.Mnemonic), clean(e.Target)
	switch {
	case mnemonic != "" && target != "":
		return fmt.Sprintf("%s of %s, %s", mnemonic, target, hash)
	case mnemonic != "" || target != "":
		return mnemonic + target + ", " + hash
	case e.Words != "":
		return hash + ", " + clean(e.Words)
	}
	return hash
}

// ago is how long ago an entry's action was over.
func ago(e *journalv1.Entry, now time.Time) string { return human.Age(now.Sub(e.At.AsTime())) }

// cacheText is what the look-up for a known result said, and why.
func cacheText(w *controlv1.WhyResponse, now time.Time) string {
	e := w.Entry
	switch e.GetCache().GetVerdict() {
	case journalv1.Cache_VERDICT_HIT_HERE:
		return "hit here" + ranOn(e)
	case journalv1.Cache_VERDICT_HIT_MEMBER:
		return "hit at " + e.Cache.From + ranOn(e)
	case journalv1.Cache_VERDICT_SKIPPED:
		return "not asked: the client wants it run (skip_cache_lookup)"
	case journalv1.Cache_VERDICT_UNCACHEABLE:
		return "not asked: the action is never cached (do_not_cache)"
	case journalv1.Cache_VERDICT_REFUSED:
		return "not asked: no machine that is there may run the action"
	}
	if e.GetCache().GetReason() != "" {
		return "could not be asked: " + e.Cache.Reason
	}
	return "miss: " + missText(w, now)
}

// ranOn says where a known result was made.
func ranOn(e *journalv1.Entry) string {
	if by := e.GetOutcome().GetWorker(); by != "" && by != e.Cache.From {
		return ", ran on " + by
	}
	return ""
}

// missText says why no result was known.
func missText(w *controlv1.WhyResponse, now time.Time) string {
	if same := w.Same; same != nil {
		o := same.GetOutcome()
		switch when := ago(same, now) + " ago"; {
		case o.GetStatus() != 0:
			return fmt.Sprintf("the same action brought no result %s: %s", when, o.StatusText)
		case o.GetExitCode() != 0:
			return fmt.Sprintf("the same action failed %s with exit code %d, and failures are not cached", when, o.ExitCode)
		case same.GetCache().GetVerdict() == journalv1.Cache_VERDICT_UNCACHEABLE:
			return "the same action was not cached " + when
		}
		return "the result made " + ago(same, now) + " ago is gone: it, or an output, was evicted"
	}
	switch {
	case w.Before == nil:
		return "nothing like it was asked for before"
	case len(w.Changes) == 0:
		return "another action than " + ago(w.Before, now) + " ago"
	}
	c := w.Changes[0]
	text := strings.TrimSpace(c.Part+" "+c.Subject) + " " + c.What
	if more := int64(len(w.Changes)) - 1 + w.MoreChanges; more == 1 {
		text += ", and one more change"
	} else if more > 1 {
		text += fmt.Sprintf(", and %s more changes", human.Count(more))
	}
	return text
}

// placeRows is where an action ran and how that place was found.
func placeRows(e *journalv1.Entry) []string {
	p := e.Placing
	var rows []string
	if e.Vain != "" {
		rows = append(rows, "merge\t"+e.Vain)
	}
	if e.Merged != "" {
		return append(rows, "place\tmerged with "+e.Merged+"'s, which began before")
	}
	if p == nil {
		if by := e.GetOutcome().GetWorker(); by != "" {
			rows = append(rows, "place\ton "+by+", where there was no choice")
		}
		return rows
	}
	text := classText(p.Class)
	if waited := p.Waited.AsDuration(); waited >= time.Millisecond {
		text += ", waited " + span(p.Waited) + " for a free slot"
	}
	rows = append(rows, "place\t"+text)
	for _, a := range p.Attempts {
		rows = append(rows, attemptRows(a)...)
	}
	if p.More > 0 {
		rows = append(rows, fmt.Sprintf("\tand %d more attempts", p.More))
	}
	return rows
}

// classText is where an action of a class may run.
func classText(class string) string {
	switch class {
	case "fingerprinted":
		return "may run where the same tools are installed (fingerprinted)"
	case "hermetic":
		return "may run on any machine of its platform (hermetic)"
	case "local":
		return "may run on this machine only (local)"
	}
	return class
}

// attemptRows is one attempt: how its peer was chosen, then what happened.
func attemptRows(a *journalv1.Attempt) []string {
	about := fmt.Sprintf("lease %d\ton %s", a.Number, peerText(a.Name, a.Self))
	switch {
	case a.Hedge:
		about += ", a copy because the other was slow"
	case len(a.Scores) == 0:
		about += ", which offered a slot that became free"
	default:
		about += ", the best of"
		if len(a.Scores) == 1 {
			about = strings.TrimSuffix(about, ", the best of") + ", the only candidate"
		}
	}
	rows := []string{about}
	for _, s := range a.Scores {
		rows = append(rows, "\t  "+scoreText(s))
	}
	var events []string
	for _, e := range a.Events {
		events = append(events, "+"+span(e.After)+" "+e.What)
	}
	if len(events) > 0 {
		rows = append(rows, "\t"+strings.Join(events, "; "))
	}
	return rows
}

func peerText(name string, self bool) string {
	if self {
		return name + " (this machine)"
	}
	return name
}

// scoreText is one candidate with the parts of its score.
func scoreText(s *journalv1.Score) string {
	if s.Refused != "" {
		return s.Name + ": " + s.Refused
	}
	text := fmt.Sprintf("%s %.2f: speed %.2f", s.Name, s.Total, s.Speed)
	for _, part := range []struct {
		name  string
		value float64
	}{{"load", -s.Load}, {"has the inputs", s.Locality}, {"transfer", -s.Transfer}, {"spread", s.Total - (s.Speed - s.Load + s.Locality - s.Transfer)}} {
		if part.value > 0.005 || part.value < -0.005 {
			text += fmt.Sprintf(", %s %+.2f", part.name, part.value)
		}
	}
	return text
}

// timeText is how long the parts took.
func timeText(t *journalv1.Timeline) string {
	var parts []string
	for _, p := range []struct {
		name string
		took *durationpb.Duration
	}{{"queue", t.GetQueued()}, {"inputs", t.GetFetch()}, {"run", t.GetRun()}, {"outputs", t.GetUpload()}} {
		if p.took != nil {
			parts = append(parts, p.name+" "+span(p.took))
		}
	}
	text := span(t.GetTotal())
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

// span is a short duration, with tenths where they matter.
func span(d *durationpb.Duration) string {
	switch took := d.AsDuration(); {
	case took < time.Millisecond:
		return fmt.Sprintf("%d µs", took.Microseconds())
	case took < time.Second:
		return fmt.Sprintf("%d ms", took.Milliseconds())
	case took < 10*time.Second:
		return fmt.Sprintf("%.1f s", took.Seconds())
	default:
		return human.Age(took)
	}
}

// outcomeText is how it ended.
func outcomeText(o *journalv1.Outcome) string {
	if o.GetStatus() != 0 {
		return "no result: " + o.StatusText
	}
	text := fmt.Sprintf("exit code %d", o.GetExitCode())
	if o.GetWorker() != "" {
		text += " on " + o.Worker
	}
	if o.GetProcessor() != nil {
		text += ", " + span(o.Processor) + " of processor"
	}
	if o.GetMemoryBytes() > 0 {
		text += ", " + human.Bytes(o.MemoryBytes) + " of memory"
	}
	return text
}

// outputsText is what came out, and whether it is what came out the last time.
func outputsText(w *controlv1.WhyResponse) string {
	o := w.Entry.GetOutcome()
	if o.GetOutputs() == 0 {
		return ""
	}
	text := fmt.Sprintf(", %s outputs", human.Count(o.Outputs))
	if o.Outputs == 1 {
		text = ", 1 output"
	}
	if o.OutputBytes > 0 {
		text += " of " + human.Bytes(o.OutputBytes)
	}
	if before := w.GetBefore().GetOutcome().GetOutputsSum(); before != 0 && before == o.OutputsSum {
		text += ", the same as the last time"
	}
	return text
}

// remarkRows is what became known later.
func remarkRows(e *journalv1.Entry, now time.Time) []string {
	var rows []string
	for _, r := range e.Remarks {
		rows = append(rows, fmt.Sprintf("later\t%s, %s ago", r.Text, human.Age(now.Sub(r.At.AsTime()))))
	}
	return rows
}

// changeRows is what differs from the last action like it.
func changeRows(w *controlv1.WhyResponse, shown int, now time.Time) []string {
	if w.Before == nil {
		return nil
	}
	when := fmt.Sprintf("since %s, %s ago:", w.Before.Action[:min(len(w.Before.Action), 12)], ago(w.Before, now))
	if w.Before.Action == w.Entry.Action {
		return []string{strings.TrimSuffix(when, ":") + " nothing changed: it is the same action"}
	}
	rows := []string{when}
	if len(w.Changes) == 0 && len(w.Unknown) == 0 {
		rows = append(rows, "  nothing that buildmesh compares")
	}
	for _, c := range w.Changes[:min(len(w.Changes), shown)] {
		rows = append(rows, "  "+strings.TrimSpace(c.Part+" "+c.Subject)+" "+c.What+changeText(c))
	}
	if more := int64(max(0, len(w.Changes)-shown)) + w.MoreChanges; more > 0 {
		row := fmt.Sprintf("  and %s more changes", human.Count(more))
		if len(w.Changes) > shown {
			row += "; list them with --all"
		}
		rows = append(rows, row)
	}
	for _, u := range w.Unknown {
		rows = append(rows, "  not known: "+u)
	}
	return rows
}

// changeText is a change's values, where they are short enough to help.
func changeText(c *controlv1.Change) string {
	const most = 160
	before, after := cutText(c.Old, most), cutText(c.New, most)
	switch {
	case c.Part == "input" && c.What != "changed", before == "" && after == "":
		return ""
	case c.What == "added":
		return ": " + after
	case c.What == "removed":
		return ": " + before
	}
	return fmt.Sprintf(": %s -> %s", orEmpty(before), orEmpty(after))
}

// cutText bounds a text for one line.
func cutText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return s
}

func orEmpty(s string) string {
	if s == "" {
		return "(empty)"
	}
	return s
}

// alsoRows lists the other actions of the target.
func alsoRows(w *controlv1.WhyResponse) []string {
	if len(w.Also) == 0 {
		return nil
	}
	rows := []string{"ALSO OF THIS TARGET\tMNEMONIC\tWHERE\tTIME\tMAKES"}
	for _, e := range w.Also {
		where := dash(e.GetOutcome().GetWorker())
		if hit(e) {
			where = "hit here"
			if e.Cache.From != "" {
				where = "hit at " + e.Cache.From
			}
		}
		total := "-"
		if t := e.GetTimeline().GetTotal(); t != nil {
			total = span(t)
		}
		rows = append(rows, strings.Join([]string{e.Action[:min(len(e.Action), 12)], dash(e.Mnemonic), where, total, dash(e.Output)}, "\t"))
	}
	if w.MoreAlso > 0 {
		rows = append(rows, fmt.Sprintf("and %s more", human.Count(w.MoreAlso)))
	}
	return rows
}
