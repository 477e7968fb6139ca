package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// idleRows come first, before a server has done anything.
func (p plan) idleRows() []Row {
	return []Row{
		{Name: "idle, resident memory", Unit: "MiB", Prepare: func(_ context.Context, s *Subject) (Round, error) {
			return func(context.Context) (float64, error) {
				used, err := s.usage()
				return float64(used.resident) / (1 << 20), err
			}, nil
		}},
		{Name: "idle, part of a core", Unit: "%", Prepare: func(_ context.Context, s *Subject) (Round, error) {
			return func(ctx context.Context) (float64, error) { return s.idlePercent(ctx, p.idleSpan()) }, nil
		}},
	}
}

// idleSpan is how long a server is watched doing nothing.
func (p plan) idleSpan() time.Duration {
	if p.quick {
		return 100 * time.Millisecond
	}
	return 10 * time.Second
}

// idlePercent is the processor time used during span, in percent of one core.
func (s *Subject) idlePercent(ctx context.Context, span time.Duration) (float64, error) {
	before, err := s.usage()
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := s.usage()
	return 100 * (after.processor - before.processor).Seconds() / span.Seconds(), err
}

// usage is what a server and the processes it has started use.
type usage struct {
	resident  int64 // bytes; pages that processes share count for each
	processor time.Duration
}

// usage reads proc_pid_stat(5) of the server's process and of its children.
func (s *Subject) usage() (usage, error) {
	if s.process == nil {
		return usage{}, fmt.Errorf("%s is no process of ours", s.Name)
	}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return usage{}, err
	}
	var sum usage
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		one, parent, err := parseStat(string(text))
		if err != nil {
			return usage{}, fmt.Errorf("%s: %w", path, err)
		}
		own := filepath.Base(filepath.Dir(path)) == strconv.Itoa(s.process.Pid)
		if own || parent == s.process.Pid {
			sum.resident += one.resident
			sum.processor += one.processor
		}
	}
	return sum, nil
}

// parseStat reads the usage and the parent of one process. Ticks are hundredths of a second.
func parseStat(text string) (usage, int, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the third field of the manual page is the first
	if len(fields) < 22 {
		return usage{}, 0, fmt.Errorf("%d fields", len(fields))
	}
	var numbers [4]int64
	for i, at := range []int{1, 11, 12, 21} { // ppid, utime, stime, rss in pages
		n, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return usage{}, 0, err
		}
		numbers[i] = n
	}
	return usage{
		resident:  numbers[3] * int64(os.Getpagesize()),
		processor: time.Duration(numbers[1]+numbers[2]) * 10 * time.Millisecond,
	}, int(numbers[0]), nil
}
