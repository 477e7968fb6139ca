package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Row is one thing measured.
type Row struct {
	Name   string
	Unit   string
	Higher bool // more is better

	// Prepare runs once for each subject before the first round; what it returns runs once a round and
	// returns the round's figure.
	Prepare func(ctx context.Context, s *Subject) (Round, error)
	// Against replaces the other server: what the figure of a row that only we have is compared with.
	Against     string
	AgainstOnce func(ctx context.Context) (float64, error)
	executes    bool // needs a subject that executes
}

// Round measures once and returns a figure in the row's unit.
type Round func(ctx context.Context) (float64, error)

// Figure is a row's outcome on one subject.
type Figure struct {
	Median, Min, Max float64
	Absent           bool
}

// Result is a measured row.
type Result struct {
	Row    Row
	Ours   Figure
	Theirs Figure
}

// Ratio says how many times better ours is than theirs, whichever direction is better; 0 where there is none.
func (r Result) Ratio() float64 {
	if r.Ours.Absent || r.Theirs.Absent || r.Ours.Median == 0 || r.Theirs.Median == 0 {
		return 0
	}
	if r.Row.Higher {
		return r.Ours.Median / r.Theirs.Median
	}
	return r.Theirs.Median / r.Ours.Median
}

// measure runs the rounds of one row on both subjects in turn. Our own errors end it; what the other server refuses
// leaves its figure out.
func measure(ctx context.Context, row Row, ours, theirs *Subject, rounds int) (Result, error) {
	first, err := row.Prepare(ctx, ours)
	if err != nil {
		return Result{}, fmt.Errorf("%s: prepare %s: %w", row.Name, ours.Name, err)
	}
	var second Round
	switch {
	case row.AgainstOnce != nil:
		second = row.AgainstOnce
	case theirs != nil && (theirs.Executes || !row.executes):
		if second, err = row.Prepare(ctx, theirs); err != nil {
			second = nil // what the other cannot do is no reason to measure nothing
		}
	}
	var a, b []float64
	for range rounds {
		figure, err := first(ctx)
		if err != nil {
			return Result{}, fmt.Errorf("%s: %s: %w", row.Name, ours.Name, err)
		}
		a = append(a, figure)
		if second == nil {
			continue
		}
		if figure, err = second(ctx); err != nil {
			b, second = nil, nil
			continue
		}
		b = append(b, figure)
	}
	return Result{Row: row, Ours: summarise(a), Theirs: summarise(b)}, nil
}

func summarise(values []float64) Figure {
	if len(values) == 0 {
		return Figure{Absent: true}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		middle = (middle + sorted[len(sorted)/2-1]) / 2
	}
	return Figure{Median: middle, Min: sorted[0], Max: sorted[len(sorted)-1]}
}

// rate calls op from callers goroutines, count times in all, and returns operations a second.
func rate(ctx context.Context, callers, count int, op func(ctx context.Context, i int) error) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int, count)
	for i := range count {
		next <- i
	}
	close(next)
	done := make(chan struct{}, callers)
	begun := time.Now()
	for range callers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range next {
				if err := op(ctx, i); err != nil {
					cancel(err)
				}
				if ctx.Err() != nil {
					return
				}
			}
		}()
	}
	for range callers {
		<-done
	}
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	return float64(count) / time.Since(begun).Seconds(), nil
}

// medianMillis calls op count times, one after another, and returns the median time of one in milliseconds.
func medianMillis(ctx context.Context, count int, op func(ctx context.Context, i int) error) (float64, error) {
	var times []float64
	for i := range count {
		begun := time.Now()
		if err := op(ctx, i); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(begun).Microseconds())/1000)
	}
	return summarise(times).Median, nil
}
