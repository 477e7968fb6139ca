package conformance

import (
	"context"
	"fmt"
	"runtime"
	"strings"
)

// Outcome is how a check ended.
type Outcome uint8

// The outcomes.
const (
	Passed Outcome = iota
	Failed
	Skipped
)

// Recorder is a T that keeps what is said to it, so that a failing check can itself be the subject
// of a test. It is used by one goroutine at a time.
type Recorder struct {
	Outcome  Outcome
	Messages []string // what Errorf, Fatalf and Skipf said
}

// Record runs c against s and tells how it ended. It returns when the check has returned.
func Record(ctx context.Context, c Check, s *Subject) *Recorder {
	r := &Recorder{}
	done := make(chan struct{})
	go func() { // ends with the check; Fatalf and Skipf end it by Goexit, as the testing package does
		defer close(done)
		c.Do(ctx, r, s)
	}()
	<-done
	return r
}

// Helper does nothing: a Recorder prints no positions.
func (r *Recorder) Helper() {}

// Logf is dropped.
func (r *Recorder) Logf(string, ...any) {}

// Errorf records a failure.
func (r *Recorder) Errorf(format string, args ...any) {
	r.Outcome = Failed
	r.Messages = append(r.Messages, fmt.Sprintf(format, args...))
}

// Fatalf records a failure and ends the check.
func (r *Recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// Skipf records that the check does not apply, unless it has failed already, and ends it.
func (r *Recorder) Skipf(format string, args ...any) {
	if r.Outcome == Passed {
		r.Outcome = Skipped
	}
	r.Messages = append(r.Messages, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// String joins the messages.
func (r *Recorder) String() string { return strings.Join(r.Messages, "; ") }
