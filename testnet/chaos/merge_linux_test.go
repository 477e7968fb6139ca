package chaos

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/exec/merge"
	"github.com/buildmesh/buildmesh/testnet/lab"
)

// What several machines are asked for at the same moment one of them runs. Whatever befalls that one, who waits for it runs
// the action itself, and waits no longer than promised before it does.
func TestMergedRuns(t *testing.T) {
	equipped(t)
	l := mesh(t, 4, apart)
	loads := map[string]*Load{}
	for _, n := range l.Nodes() {
		loads[n.Name] = client(t, n)
	}
	const takes = 2 * time.Second
	script := fmt.Sprintf("cat /proc/sys/kernel/random/uuid; sleep %g", takes.Seconds())

	if said := together(t, loads, script); len(said) != 1 {
		t.Errorf("machines that were asked for one action at once have %d results: %v", len(said), said)
	}
	for _, c := range []struct {
		name   string
		victim string
		befall func(*lab.Node) error
		within time.Duration // until the action begins anew
	}{
		{"killed", "n2", (*lab.Node).Kill, 0},
		{"stopped", "n3", (*lab.Node).Sleep, merge.PollFor + merge.Slack},
		{"revoked", "n4", func(n *lab.Node) error { _, err := l.Node("n1").Run(t.Context(), "revoke", n.Name); return err }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var victims sync.WaitGroup
			defer func() {
				cancel()
				victims.Wait()
			}()
			word := fmt.Sprintf("%d.%d", os.Getpid(), time.Now().UnixNano()) // that no other process has in its command line
			script := script + " # " + word
			victims.Go(func() { _, _ = loads[c.victim].Run(ctx, c.name, script, []string{"it"}) }) // what becomes of it is not the question
			eventually(t, "the victim runs it", 30*time.Second, func(context.Context) error {
				if n := processes(t, word); n != 1 {
					return fmt.Errorf("%d run it", n)
				}
				return nil
			})
			answered := make(chan error, 1)
			go func() { // ends with its answer, or ctx
				outcome, err := loads["n1"].Run(ctx, c.name, script, []string{"it"})
				if err == nil && outcome.Ran["n1"] != 1 {
					err = fmt.Errorf("it ran at %s", outcome)
				}
				answered <- err
			}()
			eventually(t, "n1 waits", 30*time.Second, func(ctx context.Context) error {
				s, err := l.Node("n1").Status(ctx)
				if err == nil && (len(s.Flights) != 1 || s.Flights[0].Stage != "running" || s.Slots.GetRunning() != 0) {
					err = fmt.Errorf("%v, %v", s.Flights, s.Slots)
				}
				return err
			})
			began := time.Now()
			if err := c.befall(l.Node(c.victim)); err != nil {
				t.Fatal(err)
			}
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			waited := time.Since(began) - takes
			t.Logf("%s: it began anew after %.2f s, %s promised", c.name, waited.Seconds(), c.within)
			if waited > patience*(c.within+time.Second) {
				t.Errorf("it began anew after %s", waited)
			}
		})
	}
}

// together asks all machines for one action at once, and counts what they say that it printed.
func together(t *testing.T, loads map[string]*Load, script string) map[string]int {
	var all sync.WaitGroup
	var mu sync.Mutex // guards said
	said := map[string]int{}
	for name, load := range loads {
		all.Go(func() {
			outcome, err := load.Run(t.Context(), "all", script, []string{"it"})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			said[outcome.Stdout["it"]]++
		})
	}
	all.Wait()
	return said
}

// eventually waits until a check brings no error, and tells how long that took.
func eventually(t testing.TB, what string, limit time.Duration, check func(context.Context) error) {
	t.Helper()
	took, err := lab.Eventually(t.Context(), limit, check)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%s: took %v", what, took.Round(10*time.Millisecond))
}
