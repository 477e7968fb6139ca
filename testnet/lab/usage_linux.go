package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a node has cost since its machine was made (bytes) or its process was started (the rest).
type Usage struct {
	CPU      time.Duration // of the node's process, without the actions it runs
	Memory   int64         // resident, bytes
	Sent     int64         // bytes its machine put on the wire, all headers included
	Received int64
}

// clockTick is the unit of times in /proc: every Linux architecture that Go knows has 100 a second.
const clockTick = 10 * time.Millisecond

// Usage reads the node's counters. The node has to run.
func (n *Node) Usage() (Usage, error) {
	pid := n.PID()
	if pid == 0 {
		return Usage{}, fmt.Errorf("usage of %s: it does not run", n.Name)
	}
	return UsageOf(pid, "eth0")
}

// UsageOf reads the counters of a process that runs, and of a device of its network namespace.
func UsageOf(pid int, device string) (Usage, error) {
	var u Usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	counters, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return u, err
	}
	return u, errors.Join(u.parseStat(string(stat)), u.parseNet(string(counters), device))
}

// Peak is the most memory a node's process has had resident since it was started, in bytes. The node has to run.
func (n *Node) Peak() (int64, error) {
	pid := n.PID()
	if pid == 0 {
		return 0, fmt.Errorf("memory of %s: it does not run", n.Name)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(status))
}

// parsePeak reads the line VmHWM of proc(5)'s status.
func parsePeak(text string) (int64, error) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" && fields[2] == "kB" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc status has no VmHWM")
}

// parseStat reads proc(5)'s stat: fields 14 and 15 are ticks in user and system mode, 24 the resident pages.
func (u *Usage) parseStat(text string) error {
	_, rest, _ := strings.Cut(text, ") ") // the name of the program may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return fmt.Errorf("/proc stat has %d fields", len(fields))
	}
	user, err1 := strconv.ParseInt(fields[14-3], 10, 64)
	system, err2 := strconv.ParseInt(fields[15-3], 10, 64)
	pages, err3 := strconv.ParseInt(fields[24-3], 10, 64)
	u.CPU, u.Memory = time.Duration(user+system)*clockTick, pages*int64(os.Getpagesize())
	return errors.Join(err1, err2, err3)
}

// parseNet reads the line of a device in proc(5)'s net/dev: bytes received come first, bytes sent ninth.
func (u *Usage) parseNet(text, device string) error {
	for line := range strings.Lines(text) {
		name, rest, found := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(rest)
		if !found || name != device || len(fields) < 9 {
			continue
		}
		var err1, err2 error
		u.Received, err1 = strconv.ParseInt(fields[0], 10, 64)
		u.Sent, err2 = strconv.ParseInt(fields[8], 10, 64)
		return errors.Join(err1, err2)
	}
	return fmt.Errorf("/proc net/dev has no %s", device)
}

// Metrics are the samples of the node's /metrics whose name and labels begin with prefix, summed.
func (n *Node) Metrics(ctx context.Context, prefix string) (float64, error) {
	conn, err := n.Dial(ctx, "tcp", "127.0.0.1:8981")
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8981/metrics", nil)
	if err != nil {
		return 0, err
	}
	text, err := exchange(conn, request)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", n.Name, err)
	}
	sum, found := 0.0, false
	for line := range strings.Lines(text) {
		cut := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if cut < 0 || !strings.HasPrefix(line, prefix) {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line)[cut+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metrics of %s: %w", n.Name, err)
		}
		sum, found = sum+value, true
	}
	if !found {
		return 0, fmt.Errorf("metrics of %s: none begins with %s", n.Name, prefix)
	}
	return sum, nil
}
