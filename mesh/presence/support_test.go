package presence

import (
	"context"
	"testing"
	"time"
)

// contextFor ends with the test, and after limit.
func contextFor(t *testing.T, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), limit)
}

// gone waits until n has who no more, at most 60 s.
func gone(t *testing.T, n, who *node) {
	t.Helper()
	ctx, cancel := contextFor(t, time.Minute)
	defer cancel()
	for version := uint64(0); ; {
		now, err := n.Roster.Next(ctx, version)
		if err != nil {
			t.Fatalf("%s still has %s", n.seat.Certificate().Name, who.seat.Certificate().Name)
		}
		if _, found := now.Get(who.id()); !found {
			return
		}
		version = now.Version
	}
}
