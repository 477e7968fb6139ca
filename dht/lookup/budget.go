package lookup

import (
	"context"
	"time"
)

// A budget is spent in so many ticks. One that comes late is not counted, up to lateTicks of them: not the peers but this
// machine stood still, and what they answered meanwhile has still to be read.
const (
	ticks     = 4
	lateTicks = 4
)

// budget is what is left of the time that others have to answer.
type budget struct {
	tick       time.Duration
	left, late int
}

func newBudget(d time.Duration) *budget {
	return &budget{tick: d / ticks, left: ticks, late: lateTicks}
}

// spend counts a tick that took so long, and reports whether it was the last.
func (b *budget) spend(took time.Duration) (over bool) {
	if took > 2*b.tick && b.late > 0 {
		b.late--
	} else {
		b.left--
	}
	return b.left == 0
}

// withBudget is context.WithTimeout for the answers of others. The context has no deadline, and ends with the cause
// context.DeadlineExceeded.
func withBudget(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with ctx
		b := newBudget(d)
		timer := time.NewTimer(b.tick)
		defer timer.Stop()
		for {
			armed := time.Now()
			select {
			case <-timer.C:
				if b.spend(time.Since(armed)) {
					cancel(context.DeadlineExceeded)
					return
				}
				timer.Reset(b.tick)
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}
