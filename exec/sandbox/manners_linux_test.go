package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/exec/cgroup"
)

// A background action is niced and scheduled as idle, and so is what it starts; it begins no session, because each session
// has a share of its own where the kernel groups by session.
func TestBackground(t *testing.T) {
	s := newStand(t)
	// proc_pid_stat(5): 5 process group, 6 session, 19 nice, 41 policy; SCHED_IDLE is 5.
	spec := s.shell(`awk '{ print $19, $41, ($6 == $1), ($5 == $1 || $5 == $4) }' /proc/self/stat`)
	spec.Background = true
	if got := read(t, s.run(spec).StdoutPath); got != "19 5 0 1\n" {
		t.Errorf("nice, policy, leads a session, in the action's process group: %q, want 19 5 0 1", got)
	}
	if _, err := os.Stat("/proc/self/autogroup"); err == nil { // the kernel groups by session
		spec = s.shell(`sed 's/.* nice //' /proc/self/autogroup`)
		spec.Background = true
		if got := read(t, s.run(spec).StdoutPath); got != "19\n" {
			t.Errorf("the session's nice: %q, want 19", got)
		}
	}
	own, err := exec.Command("awk", "{ print $19, $41 }", "/proc/self/stat").Output()
	if err != nil {
		t.Fatal(err)
	}
	spec = s.shell(`awk '{ print $19, $41 }' /proc/self/stat`)
	if got := read(t, s.run(spec).StdoutPath); got != string(own) {
		t.Errorf("an ordinary action: %q, want %q as this process", got, own)
	}
}

// recorded are control groups that note what is asked of them, and do nothing.
type recorded struct {
	cgroup.None
	asked []cgroup.Limits
}

func (r *recorded) New(name string, l cgroup.Limits) (cgroup.Group, error) {
	r.asked = append(r.asked, l)
	return r.None.New(name, l)
}

// TestBackgroundGroup: the control group of a background action is asked to be idle, and no other.
func TestBackgroundGroup(t *testing.T) {
	groups := &recorded{}
	s := newStandWith(t, Options{Groups: groups})
	groups.asked = nil // those of the probe
	for _, background := range []bool{true, false} {
		spec := s.shell("true")
		spec.Background, spec.Cores = background, 2
		s.run(spec)
	}
	if len(groups.asked) != 2 || !groups.asked[0].Idle || groups.asked[1].Idle || groups.asked[1].Cores != 2 {
		t.Errorf("asked for %+v, want an idle one and one of 2 cores", groups.asked)
	}
}

// freezingGroups gives control groups that freeze, or skips the test where this machine has none.
func freezingGroups(t *testing.T) cgroup.Manager {
	t.Helper()
	m, err := cgroup.Find()
	if err != nil {
		t.Skipf("no control groups here: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	g, err := m.New("probe", cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove()
	if err := errors.Join(g.Freeze(true), g.Freeze(false)); errors.Is(err, cgroup.ErrNoFreezer) {
		t.Skipf("control groups do not freeze here: %v", err)
	}
	return m
}

// size polls until the file satisfies what, at most for 20 s.
func size(t *testing.T, path string, what func(int64) bool) int64 {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		info, err := os.Stat(path)
		if err == nil && what(info.Size()) {
			return info.Size()
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, %v", path, info, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Freeze stops background actions and nothing else; they go on where they were, and die when they are killed meanwhile.
func TestFreeze(t *testing.T) {
	s := newStandWith(t, Options{Groups: freezingGroups(t)})
	const endless = "while :; do echo x; done > ../ticks"
	guest, own := s.shell(endless), s.shell(endless)
	guest.Background, guest.WorkingDirectory, own.WorkingDirectory = true, "w", "w"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for _, spec := range []Spec{guest, own} {
		running.Go(func() {
			if r, err := s.box.Run(ctx, spec); err != nil || r.Reason != Cancelled {
				t.Errorf("%v, %v", r.Reason, err)
			}
		})
	}
	defer running.Wait()
	defer cancel()
	ticks := filepath.Join(guest.Scratch, "upper/ticks")
	others := filepath.Join(own.Scratch, "upper/ticks")
	size(t, ticks, func(n int64) bool { return n > 0 })
	size(t, others, func(n int64) bool { return n > 0 })
	if err := s.box.Freeze(true); err != nil {
		t.Fatal(err)
	}
	pass := func() { // time in which the frozen one could write
		before := size(t, others, func(int64) bool { return true })
		size(t, others, func(n int64) bool { return n > before+1000 })
	}
	pass() // it stands still a moment after it was told
	stopped := size(t, ticks, func(int64) bool { return true })
	pass()
	if now := size(t, ticks, func(int64) bool { return true }); now != stopped {
		t.Errorf("a frozen action wrote %d bytes", now-stopped)
	}
	if err := s.box.Freeze(false); err != nil {
		t.Fatal(err)
	}
	size(t, ticks, func(n int64) bool { return n > stopped })
	if err := s.box.Freeze(true); err != nil { // and is killed so, by cancel
		t.Fatal(err)
	}
}

// BenchmarkForeground is the owner's job on both cores: alone, beside four background actions at full load, and beside four
// ordinary ones. Each figure is how many times as long as alone the job took.
func BenchmarkForeground(b *testing.B) {
	found, err := cgroup.Find()
	if err != nil {
		found = cgroup.None{}
	}
	for _, groups := range []cgroup.Manager{cgroup.None{}, found} {
		b.Run("groups "+groups.Version(), func(b *testing.B) {
			s := newStandWith(b, Options{Groups: groups})
			var alone, background, ordinary time.Duration
			for b.Loop() {
				alone += job()
				background += s.beside(b, true)
				ordinary += s.beside(b, false)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(background)/float64(alone), "background/alone")
			b.ReportMetric(float64(ordinary)/float64(alone), "ordinary/alone")
		})
	}
	if err := found.Close(); err != nil {
		b.Error(err)
	}
}

// beside measures the job while four actions use all the processor time they get.
func (s *stand) beside(b *testing.B, background bool) time.Duration {
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for range 4 {
		spec := s.shell("echo up; while :; do :; done")
		spec.Background, spec.Limits.Wall = background, time.Minute
		running.Go(func() { _, _ = s.box.Run(ctx, spec) })
		for deadline := time.Now().Add(20 * time.Second); ; { // it runs
			if data, err := os.ReadFile(filepath.Join(spec.Scratch, "stdout")); err == nil && strings.HasPrefix(string(data), "up") {
				break
			}
			if time.Now().After(deadline) {
				b.Fatal("an action did not start")
			}
		}
	}
	return job()
}

// job computes on two threads, a fixed amount on each.
func job() time.Duration {
	began := time.Now()
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			x := uint64(1)
			for range 400_000_000 {
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
			}
			if x == 0 {
				panic("xorshift cannot be zero")
			}
		})
	}
	both.Wait()
	return time.Since(began)
}
