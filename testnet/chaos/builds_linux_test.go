package chaos

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

var (
	seeds   = flag.Int("seeds", 2, "how many plans work is disturbed by")
	first   = flag.Int64("seed", 1, "the first seed")
	actions = flag.Int("work", 80, "how many actions each plan disturbs")
)

const (
	pace = 30 * time.Millisecond // of an action on five nodes with two slots each
	// work is what every action does; the argument of sleep marks its processes for whoever looks for leftovers.
	work   = `sleep 0.30463; seq "$1" 20000 | sha256sum`
	marker = "sleep\x000.30463\x00"
	limit  = 3 * time.Minute // of the work under one plan
)

// Work over a mesh whose nodes are killed, put to sleep, cut off, slowed, moved, paused and revoked succeeds, its
// outputs are those of undisturbed work, and nothing of its actions is left.
func TestWorkUnderChaos(t *testing.T) {
	if err := lab.Lacking(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l := mesh(t, 5, "exec.cores=2")
	office := &Office{Lab: l, Member: "n1", Log: t.Logf}
	load, err := NewLoad(l.Node("n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer load.Close()
	names := make([]string, *actions)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begun := time.Now()
	calm, err := load.Run(ctx, "calm", work, names)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("undisturbed: %.1f s; %s", time.Since(begun).Seconds(), calm)
	for seed := *first; seed < *first+int64(*seeds); seed++ {
		underPlan(t, office, load, seed, names, calm)
	}
}

// underPlan has the work done while a plan is carried out.
func underPlan(t *testing.T, office *Office, load *Load, seed int64, names []string, calm *Outcome) {
	t.Helper()
	plan := Make(seed, []string{"n2", "n3", "n4", "n5"}, time.Duration(*actions)*pace, []Kind{Kill, Sleep, Unplug, Partition, Slow, Move, Pause})
	t.Logf("seed %d:\n%s", seed, plan)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	disturbing, calmDown := context.WithCancel(ctx)
	carried := make(chan error, 1)
	go func() { carried <- office.Carry(disturbing, plan) }()
	begun := time.Now()
	got, err := load.Run(ctx, fmt.Sprint("seed", seed), work, names)
	took := time.Since(begun)
	calmDown()
	if err := <-carried; err != nil {
		t.Errorf("seed %d: the plan: %v", seed, err)
	}
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	t.Logf("seed %d: %.1f s; %s", seed, took.Seconds(), got)
	if !maps.Equal(got.Stdout, calm.Stdout) {
		t.Errorf("seed %d: outputs differ", seed)
	}
	if _, err := lab.Eventually(t.Context(), time.Minute, leftovers); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
}

// leftovers are processes of the work's actions.
func leftovers(context.Context) error {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(found, func(path string) bool {
		line, err := os.ReadFile(path)
		return err != nil || !strings.HasPrefix(string(line), marker)
	})
	if len(left) > 0 {
		return fmt.Errorf("processes of actions are left: %v", left)
	}
	return nil
}
