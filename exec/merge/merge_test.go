package merge

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// inLab runs a test in a bubble of its own time, with n nodes.
func inLab(t *testing.T, n int, test func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, n)
		defer l.close()
		test(t, l)
	})
}

// TestEqualRunsAreOne: what several nodes are asked for at once, for longer than a notice lasts, one of them runs; whoever
// begins it soon after has the result at once.
func TestEqualRunsAreOne(t *testing.T) {
	inLab(t, 4, func(t *testing.T, l *lab) {
		d := l.action("a", 3*TTL)
		var all []*asked
		for _, n := range l.nodes[:3] {
			n.set(func(n *node) { n.known = place.Estimate{Samples: 5, Median: TTL, P95: 3 * TTL} })
			all = append(all, n.asks(d))
		}
		others := 0
		for _, a := range all {
			r := a.answer(t)
			if r.Status.GetCode() != 0 || string(r.Result.StdoutRaw) != "a" || r.CachedResult {
				t.Errorf("%v", r)
			}
			if merged(r) {
				others++
			}
		}
		ran := l.ended("a")
		if len(ran) != 1 || others != 2 {
			t.Fatalf("%d ran it, %d merged", len(ran), others)
		}
		late := l.nodes[3].asks(d)
		if r := late.answer(t); !merged(r) || r.Message != "merged with "+ran[0].name()+"'s" || time.Since(late.began) > time.Second {
			t.Errorf("after %s: %v", time.Since(late.began), r)
		}
		if again := l.nodes[3].asks(d).answer(t); !again.CachedResult {
			t.Errorf("asked again: %v", again)
		}
	})
}

// begun has the first two nodes run an action, one after the other.
func begun(l *lab, takes time.Duration) (first, second *asked) {
	d := l.action("a", takes)
	first = l.nodes[0].asks(d)
	time.Sleep(100 * time.Millisecond)
	second = l.nodes[1].asks(d)
	time.Sleep(time.Second)
	return first, second
}

// TestFirstBringsNothing: whatever becomes of the one that is waited for, the other runs the action, soon.
func TestFirstBringsNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		befall func(l *lab, first *asked)
		within time.Duration // of a run of 20 s, from when it befell
	}{
		{"killed", func(l *lab, _ *asked) { l.nodes[0].kill() }, 21 * time.Second},
		{"stands still", func(l *lab, _ *asked) { l.nodes[0].set(func(n *node) { n.stopped = true }) }, 20*time.Second + 2*(PollFor+Slack)},
		{"turned out", func(l *lab, _ *asked) { l.nodes[1].merger.Gone(l.nodes[0].id) }, 21 * time.Second},
		{"fails", func(l *lab, _ *asked) { l.nodes[0].set(func(n *node) { n.fails = true }) }, 41 * time.Second},
		{"not believed", func(l *lab, _ *asked) { l.nodes[1].set(func(n *node) { n.distrust = true }) }, 41 * time.Second},
		{"cancelled by its client", func(_ *lab, first *asked) { first.flight.Cancel() }, 21 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inLab(t, 3, func(t *testing.T, l *lab) {
				if c.name == "fails" { // known when it begins
					c.befall(l, nil)
				}
				first, second := begun(l, 20*time.Second)
				began := time.Now()
				c.befall(l, first)
				r := second.answer(t)
				if r.Status.GetCode() != 0 || r.Result.GetExitCode() != 0 || r.Result.ExecutionMetadata.GetWorker() != "n2" || merged(r) {
					t.Errorf("%v", r)
				}
				if took := time.Since(began); took > c.within || took < 20*time.Second {
					t.Errorf("answered after %s", took)
				}
			})
		})
	}
}

// TestPatience: a run that does not end is waited for as long as such actions take at worst, thrice.
func TestPatience(t *testing.T) {
	for _, c := range []struct {
		known place.Estimate
		waits time.Duration
	}{
		{place.Estimate{}, unknownPatience},
		{place.Estimate{Samples: 5, Median: time.Second, P95: time.Second}, leastPatience},
		{place.Estimate{Samples: 5, Median: time.Second, P95: 20 * time.Second}, time.Minute},
		{place.Estimate{Samples: 5, Median: time.Second, P95: time.Hour}, mostPatience},
	} {
		inLab(t, 2, func(t *testing.T, l *lab) {
			l.nodes[0].set(func(n *node) { n.stuck = true })
			l.nodes[1].set(func(n *node) { n.known = c.known })
			first, second := begun(l, 10*time.Second)
			r := second.answer(t)
			if took := time.Since(second.began) - 10*time.Second; r.Result.ExecutionMetadata.GetWorker() != "n2" || took < c.waits || took > c.waits+time.Second {
				t.Errorf("waited %s with %+v: %v", took, c.known, r)
			}
			first.flight.Cancel()
		})
	}
}

// TestHerd: when the one that several wait for is lost, one of them runs it for the rest.
func TestHerd(t *testing.T) {
	inLab(t, 6, func(t *testing.T, l *lab) {
		d := l.action("a", 10*time.Second)
		l.nodes[0].asks(d)
		time.Sleep(100 * time.Millisecond)
		var rest []*asked
		for _, n := range l.nodes[1:] {
			rest = append(rest, n.asks(d))
		}
		time.Sleep(5 * time.Second)
		l.nodes[0].kill()
		l.nodes[0].table.Close()
		for _, a := range rest {
			if r := a.answer(t); r.Status.GetCode() != 0 || r.Result.ExecutionMetadata.GetWorker() == "n1" {
				t.Errorf("%v", r)
			}
		}
		if ran := l.ended("a"); len(ran) != 1 {
			t.Errorf("%d ran it", len(ran))
		}
	})
}

// TestNotMerged: what wants a run of its own, is shared with nobody or takes no time is neither told nor waited for.
func TestNotMerged(t *testing.T) {
	for name, c := range map[string]struct {
		request func(*flight.Request)
		action  func(*repb.Action)
		node    func(*node)
		told    bool
	}{
		"ordinary":          {told: true},
		"skip_cache_lookup": {request: func(r *flight.Request) { r.SkipCacheLookup = true }},
		"do_not_cache":      {action: func(a *repb.Action) { a.DoNotCache = true }},
		"private":           {node: func(n *node) { n.private = true }},
		"quick":             {node: func(n *node) { n.known = place.Estimate{Samples: 5, Median: Worth - 1, P95: time.Hour} }},
		"slow enough":       {node: func(n *node) { n.known = place.Estimate{Samples: 5, Median: Worth, P95: time.Hour} }, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, 2, func(t *testing.T, l *lab) {
				var bendAction []func(*repb.Action)
				var bendRequest []func(*flight.Request)
				if c.action != nil {
					bendAction = append(bendAction, c.action)
				}
				if c.request != nil {
					bendRequest = append(bendRequest, c.request)
				}
				d := l.action("a", 10*time.Second, bendAction...)
				var all []*asked
				for _, n := range l.nodes {
					if c.node != nil {
						n.set(c.node)
					}
					all = append(all, n.asks(d, bendRequest...))
				}
				for _, a := range all {
					if r := a.answer(t); r.Status.GetCode() != 0 || merged(r) && !c.told {
						t.Errorf("%v", r)
					}
				}
				told := l.nodes[0].tells+l.nodes[1].tells+len(l.nodes[0].merger.board.notes)+len(l.nodes[1].merger.board.notes) > 0
				if told != c.told {
					t.Errorf("told: %v", told)
				}
				if ran := len(l.ended("a")); c.told != (ran == 1) {
					t.Errorf("%d ran it", ran)
				}
			})
		})
	}
}

// TestGuessesAreCounted: a key of which nothing is known, told of or asked for, is counted; what is known and what ends is not.
func TestGuessesAreCounted(t *testing.T) {
	inLab(t, 2, func(t *testing.T, l *lab) {
		n := l.nodes[0]
		d := l.action("a", 10*time.Second)
		running, stored, known := keyOf(d), Key{1}, Key{2}
		n.asks(d)
		time.Sleep(time.Second)
		n.set(func(n *node) { n.stored[stored] = &repb.ActionResult{} })
		n.merger.note(n.id, notice{key: known, kind: leasev1.Notice_KIND_MADE})
		for _, k := range []Key{running, stored, {3}} {
			if _, err := n.merger.Await(from(l.nodes[1].id), &leasev1.AwaitRequest{Key: k[:]}); err != nil {
				t.Fatal(err)
			}
		}
		guess, other := Key{4}, Key{5}
		if _, err := n.merger.Tell(from(l.nodes[1].id), &leasev1.TellRequest{Notices: []*leasev1.Notice{
			{Key: known[:], Kind: leasev1.Notice_KIND_BEGUN}, {Key: guess[:], Kind: leasev1.Notice_KIND_BEGUN}, {Key: other[:], Kind: leasev1.Notice_KIND_ENDED},
		}}); err != nil {
			t.Fatal(err)
		}
		if n.misses != 2 {
			t.Errorf("%d keys are counted, want 2", n.misses)
		}
	})
}

// liar keeps boards and claims to run things.
type liar struct {
	leasev1.UnimplementedMergeServer
	earlier func(asker []byte) [][]byte // for one notice
	await   func() (*leasev1.AwaitResponse, error)
}

func (l *liar) Tell(ctx context.Context, in *leasev1.TellRequest) (*leasev1.TellResponse, error) {
	id, err := callerOf(ctx)
	answer := &leasev1.TellResponse{}
	for range in.Notices {
		answer.Earlier = append(answer.Earlier, l.earlier(id[:])...)
	}
	return answer, err
}

func (l *liar) Await(context.Context, *leasev1.AwaitRequest) (*leasev1.AwaitResponse, error) {
	return l.await()
}

// TestLies: whatever the keeper of a board says, and whoever it names, the action runs; only who says for ever that it is
// running it delays it, and then by the patience for one action.
func TestLies(t *testing.T) {
	forever := func() (*leasev1.AwaitResponse, error) { return &leasev1.AwaitResponse{Running: true}, nil }
	rubbish := func() (*leasev1.AwaitResponse, error) {
		return &leasev1.AwaitResponse{Receipts: [][]byte{{1}, nil}}, nil
	}
	for _, c := range []struct {
		name    string
		earlier func(l *lab, asker []byte) [][]byte
		await   func() (*leasev1.AwaitResponse, error)
		delay   time.Duration
	}{
		{"an honest member that does not run it", func(l *lab, _ []byte) [][]byte { return [][]byte{l.nodes[1].id[:]} }, forever, 100 * time.Millisecond},
		{"nobody known", func(*lab, []byte) [][]byte { id := peer.ID{9}; return [][]byte{id[:]} }, forever, 100 * time.Millisecond},
		{"the asker", func(_ *lab, asker []byte) [][]byte { return [][]byte{asker} }, forever, 0},
		{"no id", func(*lab, []byte) [][]byte { return [][]byte{{1, 2, 3}} }, forever, 0},
		{"too few answers", func(*lab, []byte) [][]byte { return nil }, forever, 0},
		{"itself, with rubbish", func(l *lab, _ []byte) [][]byte { return [][]byte{l.nodes[2].id[:]} }, rubbish, 100 * time.Millisecond},
		{"itself, running for ever", func(l *lab, _ []byte) [][]byte { return [][]byte{l.nodes[2].id[:]} }, forever, unknownPatience + time.Second},
		{"others in turn, running for ever", func(l *lab, _ []byte) [][]byte { return [][]byte{l.nodes[2+rand.IntN(3)].id[:]} }, forever, unknownPatience + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inLab(t, 5, func(t *testing.T, l *lab) {
				lies := &liar{earlier: func(asker []byte) [][]byte { return c.earlier(l, asker) }, await: c.await}
				for _, n := range l.nodes[2:] {
					n.set(func(n *node) { n.lie = lies })
				}
				for i := range 200 { // until a liar keeps the board
					d := l.action(fmt.Sprint(i), 5*time.Second)
					if k := l.keeper(keyOf(d)); k == l.nodes[0].id || k == l.nodes[1].id {
						continue
					}
					a := l.nodes[0].asks(d)
					r := a.answer(t)
					if r.Status.GetCode() != 0 || merged(r) || r.Result.ExecutionMetadata.GetWorker() != "n1" {
						t.Errorf("%v", r)
					}
					if took := time.Since(a.began); took > 5*time.Second+c.delay {
						t.Errorf("it was delayed by %s", took-5*time.Second)
					}
					break
				}
				for _, n := range l.nodes[2:] {
					if n.awaits > int(unknownPatience/PollFor)+1 {
						t.Errorf("one liar was asked %d times", n.awaits)
					}
				}
			})
		})
	}
}

// storms is how many worlds TestStorm plays: go test ./exec/merge -run Storm -storms 100
var storms = flag.Uint64("storms", 6, "seeded worlds of TestStorm")

// TestStorm: seeded worlds in which many nodes are asked for the same actions at random moments, over a slow network. Where
// nobody is lost each action runs once; where nodes are killed, stopped and fail, every client that lives is answered.
func TestStorm(t *testing.T) {
	for seed := range *storms {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inLab(t, 8, func(t *testing.T, l *lab) { storm(t, l, seed) })
		})
	}
}

func storm(t *testing.T, l *lab, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	faults := seed%2 == 1
	const actions = 40
	l.delay = func() time.Duration {
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Duration(random.IntN(20)) * time.Millisecond
	}
	pick := func(n int) int { l.mu.Lock(); defer l.mu.Unlock(); return random.IntN(n) }
	answers := make(chan error)
	clients := 0
	for i := range actions {
		d := l.action(fmt.Sprint(i), time.Duration(100+pick(20_000))*time.Millisecond)
		for _, n := range l.nodes {
			if pick(3) == 0 {
				continue
			}
			clients++
			wait := time.Duration(pick(30_000)) * time.Millisecond
			go func() { // ends with its answer
				time.Sleep(wait)
				r := n.asks(d).answer(t)
				if !n.isDown() && (r.Status.GetCode() != 0 || string(r.Result.GetStdoutRaw()) != fmt.Sprint(i)) {
					answers <- fmt.Errorf("action %d at %s: %v", i, n.name(), r)
					return
				}
				answers <- nil
			}()
		}
	}
	if faults {
		time.Sleep(10 * time.Second)
		l.nodes[pick(4)].kill()
		l.nodes[4+pick(2)].set(func(n *node) { n.stopped = true })
		l.nodes[6+pick(2)].set(func(n *node) { n.fails = true })
	}
	for range clients {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	for i := range actions {
		if ran := l.ended(fmt.Sprint(i)); len(ran) > 1 && !faults {
			t.Errorf("%d nodes ran action %d", len(ran), i)
		}
	}
}
