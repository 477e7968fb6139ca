package power

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// machine lays out files below a directory of its own.
func machine(t *testing.T, content map[string]string) files {
	t.Helper()
	dir := t.TempDir()
	for path, text := range content {
		at := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return files(dir)
}

func TestBattery(t *testing.T) {
	const at = "sys/class/power_supply/"
	laptop := func(status, online string) map[string]string {
		return map[string]string{
			at + "BAT0/type": "Battery", at + "BAT0/status": status, at + "BAT0/capacity": "62",
			at + "AC/type": "Mains", at + "AC/online": online,
			at + "mouse/type": "Battery", at + "mouse/scope": "Device", at + "mouse/status": "Discharging", at + "mouse/capacity": "3",
		}
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  Facts
	}{
		"a desktop":          {nil, Facts{}},
		"unplugged":          {laptop("Discharging", "0"), Facts{OnBattery: true, Charge: 62}},
		"at the plug":        {laptop("Charging", "1"), Facts{}},
		"full, weak adapter": {laptop("Discharging", "1"), Facts{Charge: 62}},
	} {
		var f Facts
		if err := (batteryReader{machine(t, test.files)}).Read(t.Context(), &f); err != nil || f != test.want {
			t.Errorf("%s: %+v, %v, want %+v", name, f, err, test.want)
		}
	}
}

func TestHeat(t *testing.T) {
	const zone = "sys/class/thermal/thermal_zone0/"
	for temperature, want := range map[string]bool{"45000": false, "94999": false, "95000": true} {
		var f Facts
		root := machine(t, map[string]string{
			zone + "temp": temperature, zone + "trip_point_0_type": "active", zone + "trip_point_0_temp": "40000",
			zone + "trip_point_1_type": "passive", zone + "trip_point_1_temp": "95000",
		})
		if err := (heatReader{root}).Read(t.Context(), &f); err != nil || f.Hot != want {
			t.Errorf("at %s: hot is %v, %v", temperature, f.Hot, err)
		}
	}
}

func TestMemory(t *testing.T) {
	var f Facts
	root := machine(t, map[string]string{"proc/meminfo": "MemTotal: 8 kB\nMemAvailable:   2048 kB\n"})
	if err := (memoryReader{root}).Read(t.Context(), &f); err != nil || f.Available != 2<<20 {
		t.Errorf("%d, %v", f.Available, err)
	}
	if err := (memoryReader{machine(t, map[string]string{"proc/meminfo": "MemTotal: 8 kB"})}).Read(t.Context(), &f); err == nil {
		t.Error("a memory that is not told was read")
	}
}

// The share of others counts neither what runs niced nor the node's own actions.
func TestProcessors(t *testing.T) {
	stat := func(user, nice, idle int) string {
		return fmt.Sprintf("cpu  %d %d 0 %d 0 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1", user, nice, idle)
	}
	root := machine(t, map[string]string{"proc/stat": stat(0, 0, 0)})
	var own time.Duration
	counted := true
	p := &processorReader{root: root, own: func() (time.Duration, bool) { return own, counted }}
	share := func(text string) float64 {
		t.Helper()
		if err := os.WriteFile(filepath.Join(string(root), "proc/stat"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var f Facts
		if err := p.Read(t.Context(), &f); err != nil {
			t.Fatal(err)
		}
		return f.OtherCPU
	}
	if got := share(stat(100, 0, 0)); got != 0 {
		t.Errorf("the first look knows nothing to compare with, and says %v", got)
	}
	own += 4 * time.Second // 400 ticks, of which 300 niced
	if got := share(stat(200, 300, 400)); got != 0 {
		t.Errorf("the node's actions count as others': %v", got)
	}
	counted = false
	share(stat(200, 300, 400))
	if got := share(stat(200, 600, 700)); got != 0 {
		t.Errorf("what is niced counts as others', where actions are not counted: %v", got)
	}
	user, idle := 200, 700
	var got float64
	for range 20 {
		user, idle = user+150, idle+50
		got = share(stat(user, 600, idle))
	}
	if got < 0.74 || got > 0.76 {
		t.Errorf("after a while at three quarters the share is %v", got)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("cpu  1 2 3 4 5 6 7 8 9 10\n"))
	f.Add([]byte("cpu -1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		times, err := parseStat(data)
		for _, n := range times {
			if err == nil && n < 0 {
				t.Errorf("negative time in %v", times)
			}
		}
	})
}

// fakeBus answers every question alike.
type fakeBus struct {
	value any
	err   error
	asked []string
}

func (b *fakeBus) Property(_ context.Context, service, _, _, name string) (any, error) {
	b.asked = append(b.asked, service+" "+name)
	return b.value, b.err
}

func TestBus(t *testing.T) {
	down := errors.New("no bus")
	for _, test := range []struct {
		make  func(bus) Reader
		value any
		err   error
		want  Facts
		fails bool
	}{
		{func(b bus) Reader { return userReader{b} }, false, nil, Facts{Active: true}, false},
		{func(b bus) Reader { return userReader{b} }, true, nil, Facts{}, false},
		{func(b bus) Reader { return userReader{b} }, "yes", nil, Facts{}, true},
		{func(b bus) Reader { return userReader{b} }, nil, down, Facts{}, true},
		{func(b bus) Reader { return meteredReader{b} }, uint32(1), nil, Facts{Metered: true}, false},
		{func(b bus) Reader { return meteredReader{b} }, uint32(3), nil, Facts{Metered: true}, false},
		{func(b bus) Reader { return meteredReader{b} }, uint32(4), nil, Facts{}, false},
		{func(b bus) Reader { return meteredReader{b} }, int32(1), nil, Facts{}, true},
	} {
		var f Facts
		r := test.make(&fakeBus{value: test.value, err: test.err})
		if err := r.Read(t.Context(), &f); (err != nil) != test.fails || f != test.want {
			t.Errorf("%s answered %v, %v: %+v, %v", r.Name(), test.value, test.err, f, err)
		}
	}
}
