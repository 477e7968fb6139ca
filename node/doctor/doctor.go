package doctor

import (
	"context"
	"fmt"
)

// Verdict is how a check ended.
type Verdict int

// The verdicts, best first.
const (
	OK Verdict = iota
	Warning
	Failed
)

func (v Verdict) String() string {
	switch v {
	case OK:
		return "ok"
	case Warning:
		return "warning"
	default:
		return "failed"
	}
}

// Finding is what a check found: one sentence without a full stop, and how to mend it unless OK.
type Finding struct {
	Verdict Verdict
	Fact    string
	Fix     string
}

// Check is one question about this machine.
type Check struct {
	Name  string
	Needs []string // names of checks before it that must not have failed
	Run   func(ctx context.Context) []Finding
}

// Result is one finding of the check it names.
type Result struct {
	Check string
	Finding
}

// Run asks the checks in order. A check needs only such as stand before it; anything else is a
// programmer's error and panics.
func Run(ctx context.Context, checks []Check) []Result {
	var results []Result
	sound := make(map[string]bool) // asked, and not failed
	known := make(map[string]bool)
	for _, c := range checks {
		ready := true
		for _, need := range c.Needs {
			if !known[need] {
				panic(fmt.Sprintf("doctor: check %s needs %s, which does not stand before it", c.Name, need))
			}
			ready = ready && sound[need]
		}
		known[c.Name] = true
		if !ready {
			continue
		}
		worst := OK
		for _, f := range ask(ctx, c) {
			worst = max(worst, f.Verdict)
			results = append(results, Result{c.Name, f})
		}
		sound[c.Name] = worst != Failed
	}
	return results
}

// ask runs one check, unless the time is up.
func ask(ctx context.Context, c Check) []Finding {
	if err := ctx.Err(); err != nil {
		return []Finding{{Warning, "not checked: " + err.Error(), "run it again: buildmesh doctor"}}
	}
	return c.Run(ctx)
}

// Worst is the worst verdict among results.
func Worst(results []Result) Verdict {
	worst := OK
	for _, r := range results {
		worst = max(worst, r.Verdict)
	}
	return worst
}

// one makes a check of a function that finds one thing.
func one(name string, needs []string, find func() Finding) Check {
	return Check{name, needs, func(context.Context) []Finding { return []Finding{find()} }}
}

func ok(format string, args ...any) Finding { return Finding{OK, fmt.Sprintf(format, args...), ""} }

func warning(fix, format string, args ...any) Finding {
	return Finding{Warning, fmt.Sprintf(format, args...), fix}
}

func failed(fix, format string, args ...any) Finding {
	return Finding{Failed, fmt.Sprintf(format, args...), fix}
}
