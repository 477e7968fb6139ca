package lookup

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A tick during which this machine stood still is not counted, but for a machine that does nothing else.
func TestBudget(t *testing.T) {
	const inTime, late = 10 * time.Millisecond, time.Second
	for name, c := range map[string]struct {
		took []time.Duration
		over bool
	}{
		"all in time":         {[]time.Duration{inTime, inTime, inTime, inTime}, true},
		"one short":           {[]time.Duration{inTime, inTime, inTime}, false},
		"the last comes late": {[]time.Duration{inTime, inTime, inTime, late}, false},
		"and then in time":    {[]time.Duration{inTime, inTime, inTime, late, inTime}, true},
		"late ones only":      {[]time.Duration{late, late, late, late, late, late, late}, false},
		"and no end":          {[]time.Duration{late, late, late, late, late, late, late, late}, true},
	} {
		b, over := newBudget(4*inTime), false
		for i, took := range c.took {
			if over {
				t.Errorf("%s: over after %d ticks", name, i)
			}
			over = b.spend(took)
		}
		if over != c.over {
			t.Errorf("%s: over is %v", name, over)
		}
	}
}

// Where nothing stands still a budget is what it says, without a deadline that would be told to the peer asked.
func TestWithBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := withBudget(t.Context(), Budget)
		defer cancel()
		if at, is := ctx.Deadline(); is {
			t.Errorf("it has a deadline after %v", at.Sub(began))
		}
		<-ctx.Done()
		if took := time.Since(began); took != Budget || context.Cause(ctx) != context.DeadlineExceeded {
			t.Errorf("it ended after %v: %v", took, context.Cause(ctx))
		}

		began = time.Now()
		ctx, cancel = withBudget(t.Context(), Budget)
		cancel()
		<-ctx.Done()
		if took := time.Since(began); took != 0 || context.Cause(ctx) != context.Canceled {
			t.Errorf("cancelled, it ended after %v: %v", took, context.Cause(ctx))
		}
	})
}
