package power

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The readers in this file look at Linux's files below a root, which tests replace by a directory of their own.

// files is the root of a machine's files; "/" but in tests.
type files string

func (r files) read(path string) (string, error) {
	data, err := os.ReadFile(filepath.Join(string(r), path))
	return strings.TrimSpace(string(data)), err
}

// number reads a file with one whole number in it.
func (r files) number(path string) (int64, error) {
	text, err := r.read(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// batteryReader looks at the power supplies (Linux Documentation/ABI/testing/sysfs-class-power).
type batteryReader struct{ root files }

func (batteryReader) Name() string { return "battery" }

// Read finds the machine on battery when one of its batteries discharges and no mains supply is online. Batteries of
// devices, such as a mouse, do not count.
func (b batteryReader) Read(_ context.Context, f *Facts) error {
	const dir = "sys/class/power_supply"
	supplies, err := os.ReadDir(filepath.Join(string(b.root), dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var discharging, online bool
	var charge float64
	for _, s := range supplies {
		at := filepath.Join(dir, s.Name())
		kind, _ := b.root.read(filepath.Join(at, "type"))
		if scope, _ := b.root.read(filepath.Join(at, "scope")); scope == "Device" {
			continue
		}
		if kind != "Battery" {
			on, _ := b.root.number(filepath.Join(at, "online"))
			online = online || on > 0
			continue
		}
		if state, _ := b.root.read(filepath.Join(at, "status")); state != "Discharging" {
			continue
		}
		discharging = true
		if percent, err := b.root.number(filepath.Join(at, "capacity")); err == nil {
			charge = float64(percent)
		}
	}
	f.OnBattery, f.Charge = discharging && !online, charge
	return nil
}

// heatReader compares the thermal zones with their passive trip points, at which the machine begins to slow itself down
// (Linux Documentation/driver-api/thermal/sysfs-api.rst). Temperatures are in thousandths of a degree.
type heatReader struct{ root files }

func (heatReader) Name() string { return "heat" }

func (h heatReader) Read(_ context.Context, f *Facts) error {
	zones, err := filepath.Glob(filepath.Join(string(h.root), "sys/class/thermal/thermal_zone*"))
	if err != nil {
		return err
	}
	for _, zone := range zones {
		at, err := filepath.Rel(string(h.root), zone)
		if err != nil {
			return err
		}
		now, err := h.root.number(filepath.Join(at, "temp"))
		if err != nil {
			continue // a zone may be switched off
		}
		for i := range maxTrips {
			kind, err := h.root.read(filepath.Join(at, fmt.Sprintf("trip_point_%d_type", i)))
			if err != nil {
				break
			}
			limit, err := h.root.number(filepath.Join(at, fmt.Sprintf("trip_point_%d_temp", i)))
			if err == nil && limit > 0 && now >= limit && (kind == "passive" || kind == "hot" || kind == "critical") {
				f.Hot = true
			}
		}
	}
	return nil
}

// maxTrips bounds the trip points of one zone; the kernel's own bound was 12 as long as it had one.
const maxTrips = 16

// memoryReader reads MemAvailable (proc_meminfo(5)).
type memoryReader struct{ root files }

func (memoryReader) Name() string { return "memory" }

func (m memoryReader) Read(_ context.Context, f *Facts) error {
	text, err := m.root.read("proc/meminfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, "MemAvailable:"); found {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return fmt.Errorf("MemAvailable: %w", err)
			}
			f.Available = kib << 10
			return nil
		}
	}
	return errors.New("MemAvailable is not told")
}

// processorReader tells from /proc/stat which share of the processors others use. Where it is counted what the node's own
// actions use, that is taken off; elsewhere what runs niced is not counted: guest actions run so.
type processorReader struct {
	root files
	own  Usage // of the node's actions; nil: not counted

	last    processorTimes
	ours    time.Duration
	counted bool // ours is known
	share   float64
	known   bool
}

// Usage tells the processor time that all actions of the node have used so far; false: it is not counted.
type Usage func() (time.Duration, bool)

// processorTimes is the first line of /proc/stat in ticks: user, nice, system, idle, iowait, irq, softirq, steal.
type processorTimes [8]int64

// userHz is the unit of /proc/stat: ticks a second, fixed in the kernel's interface.
const userHz = 100

// smoothing is the weight of the newest look: of five looks the last ones count most.
const smoothing = 0.35

func (*processorReader) Name() string { return "processors" }

func (p *processorReader) Read(_ context.Context, f *Facts) error {
	text, err := p.root.read("proc/stat")
	if err != nil {
		return err
	}
	times, err := parseStat([]byte(text))
	if err != nil {
		return err
	}
	var ours time.Duration
	counted := false
	if p.own != nil {
		ours, counted = p.own()
	}
	if p.known && counted == p.counted {
		var total int64
		for i := range times {
			total += times[i] - p.last[i]
		}
		busy := times.busy(counted) - p.last.busy(counted)
		if counted {
			busy -= int64((ours - p.ours) * userHz / time.Second)
		}
		if total > 0 {
			share := min(max(float64(busy)/float64(total), 0), 1)
			p.share += smoothing * (share - p.share)
		}
	}
	p.last, p.ours, p.counted, p.known = times, ours, counted, true
	f.OtherCPU = p.share
	return nil
}

// busy is what was spent, on what is niced too or not.
func (t processorTimes) busy(niced bool) int64 {
	sum := t[0] + t[2] + t[5] + t[6]
	if niced {
		sum += t[1]
	}
	return sum
}

// parseStat reads the line of all processors together.
func parseStat(data []byte) (processorTimes, error) {
	var times processorTimes
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) <= len(times) || fields[0] != "cpu" {
			continue
		}
		for i := range times {
			n, err := strconv.ParseInt(fields[i+1], 10, 64)
			if err != nil || n < 0 {
				return times, fmt.Errorf("processor time %q", fields[i+1])
			}
			times[i] = n
		}
		return times, nil
	}
	return times, errors.New("no line of all processors")
}
