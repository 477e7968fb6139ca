package lookup_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/dht/summary"
)

var (
	mesh   = receipt.Policy{Agree: 1}
	quorum = receipt.Policy{Agree: 2}
)

func TestSecondNodeHits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, mesh, nil)
		w.nodes[0].build(t, "one", "x")
		w.settle(t, 0, 1, actionOf("one"))
		w.want(t, 1, "one", 0)
		// The executor leaves: what the second has, the third still gets.
		w.settle(t, 1, 2, actionOf("one"))
		w.nodes[0].Cut()
		w.want(t, 2, "one", 0)
		if s := w.nodes[2].lookup.Stat(); s.Hits != 1 {
			t.Errorf("counts are %+v", s)
		}
	})
}

func TestMissSendsNothing(t *testing.T) {
	w := newWorld(t, 3, mesh, nil)
	w.nodes[0].build(t, "one", "x")
	w.settle(t, 0, 1, actionOf("one"))
	w.connected(t)
	before := w.nodes[0].Calls() + w.nodes[2].Calls()
	for i := range 1000 {
		w.want(t, 1, fmt.Sprint("absent ", i))
	}
	if after := w.nodes[0].Calls() + w.nodes[2].Calls(); after != before {
		t.Errorf("%d calls for 1000 misses", after-before)
	}
	if s := w.nodes[1].lookup.Stat(); s.Silent != 1000 {
		t.Errorf("counts are %+v", s)
	}
}

// A miss under two roots takes little memory: nothing is put into words for nobody, no hasher made.
func TestMissAllocations(t *testing.T) {
	const most = 10
	w := newWorld(t, 3, mesh, nil)
	w.nodes[0].build(t, "one", "x")
	w.settle(t, 0, 1, actionOf("one"))
	w.connected(t)
	absent := lookup.Query{Action: actionOf("absent"), Roots: []actioncache.Root{root, {7}}}
	allocations := testing.AllocsPerRun(1000, func() {
		if _, err := w.nodes[1].lookup.Find(t.Context(), absent); !errors.Is(err, lookup.ErrNotFound) {
			t.Errorf("found what nobody has: %v", err)
		}
	})
	if allocations > most {
		t.Errorf("a miss takes %v allocations, want %d at most", allocations, most)
	}
}

// Who shows a receipt and has not the outputs any more sends nobody looking around: the executor that signed it is asked for them.
func TestExecutorIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, shown := newWorldShowing(t, 4, 1)
		w.nodes[0].build(t, "one", "x")
		raw, key := w.nodes[0].signed(t, "one")
		shown.answer = share.Answer{Receipts: [][]byte{raw}}
		for _, x := range []*summary.Publisher{w.nodes[0].summary.Publisher, w.nodes[1].summary.Publisher} {
			x.Remove([]cid.Key{key})
			x.Flush()
		}
		w.nodes[1].summary.Publisher.Add([]cid.Key{key})
		w.settle(t, 1, 2, actionOf("one"))
		w.connected(t)
		bystander := w.nodes[3].Calls()
		w.want(t, 2, "one", 0)
		if calls := w.nodes[3].Calls() - bystander; calls != 0 {
			t.Errorf("who has nothing to do with it was called %d times", calls)
		}
	})
}

// Many at once look for the same and for different results: each is asked for once, and together.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		const n = 100
		for i := range n {
			w.nodes[0].publish(t, fmt.Sprint(i), &repb.ActionResult{StdoutRaw: []byte{byte(i)}})
		}
		w.settle(t, 0, 1, actionOf(fmt.Sprint(n-1)))
		before := w.nodes[0].Calls()
		w.nodes[0].Freeze()
		var looking sync.WaitGroup
		for i := range n {
			for range 3 {
				looking.Go(func() {
					w.nodes[1].lookup.Find(t.Context(), lookup.Query{Action: actionOf(fmt.Sprint(i)), Roots: roots})
				})
			}
		}
		synctest.Wait() // until all ask; one call at most is under way
		if asked := w.nodes[1].lookup.Stat().Asked; asked != n {
			t.Errorf("asked for %d of %d results", asked, n)
		}
		w.nodes[0].Thaw()
		looking.Wait()
		if calls := w.nodes[0].Calls() - before; calls > 2 {
			t.Errorf("%d calls for %d results, want at most one and another for all that came meanwhile", calls, n)
		}
	})
}

// A stopped peer that is said to have everything costs its budget once; then lookups leave it out.
func TestFrozenCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		const n = 200
		for i := range n {
			w.nodes[0].publish(t, fmt.Sprint(i), &repb.ActionResult{StdoutRaw: []byte{byte(i)}})
		}
		w.settle(t, 0, 1, actionOf(fmt.Sprint(n-1)))
		w.nodes[0].Freeze()
		before, began := w.nodes[0].Calls(), time.Now()
		for i := range n {
			w.want(t, 1, fmt.Sprint(i))
		}
		if took := time.Since(began); took != lookup.Budget {
			t.Errorf("%d lookups took %s, want %s", n, took, lookup.Budget)
		}
		if calls := w.nodes[0].Calls() - before; calls != 1 {
			t.Errorf("a stopped peer was asked %d times", calls)
		}
	})
}

// Who stood still for longer than the budget is asked again as soon as its answer comes, and what it has is no miss that
// is remembered. Late twice running, it is left out for SlowFor.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		for _, name := range []string{"one", "two", "three"} {
			w.nodes[0].build(t, name, "x")
		}
		w.settle(t, 0, 1, actionOf("three"))
		w.connected(t)
		late := func(name string) {
			t.Helper()
			w.nodes[0].Freeze()
			w.want(t, 1, name)
			synctest.Wait() // the call is over its budget too, which ends in the same moment as that of who asked
			w.nodes[0].Thaw()
			synctest.Wait()
		}
		late("one")
		w.want(t, 1, "one", 0)
		late("two")
		w.want(t, 1, "two", 0) // the one in between was in time
		late("three")
		late("three")
		calls := w.nodes[0].Calls()
		time.Sleep(lookup.SlowFor / 2)
		w.want(t, 1, "three")
		if asked := w.nodes[0].Calls() - calls; asked != 0 {
			t.Errorf("who was late twice running was asked %d times", asked)
		}
		time.Sleep(lookup.SlowFor / 2)
		w.want(t, 1, "three", 0)
	})
}

// Questions that wait for their turn while a peer does not answer are not put to it afterwards: nobody waits any more.
func TestStaleQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		names := []string{"one", "two", "three"}
		for _, name := range names {
			w.nodes[0].build(t, name, "x")
		}
		w.settle(t, 0, 1, actionOf("three"))
		w.connected(t)
		calls := w.nodes[0].Calls()
		w.nodes[0].Freeze()
		var looking sync.WaitGroup
		for _, name := range names {
			looking.Go(func() {
				w.nodes[1].lookup.Find(t.Context(), lookup.Query{Action: actionOf(name), Roots: roots})
			})
		}
		looking.Wait()
		time.Sleep(2 * lookup.SlowFor)
		if asked := w.nodes[0].Calls() - calls; asked != 1 {
			t.Errorf("it was asked %d times, want once", asked)
		}
	})
}

// Of two candidates the one asked first is stopped: the other answers for it, within the same budget.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, mesh, nil)
		w.nodes[0].build(t, "one", "x")
		w.nodes[1].build(t, "one", "x")
		w.settle(t, 0, 2, actionOf("one"))
		w.settle(t, 1, 2, actionOf("one"))
		first, second := 0, 1
		if w.nodes[2].summary.Peers.Find([]cid.Key{keyer.Result(actionOf("one"), root)})[0][0] == w.nodes[1].ID {
			first, second = 1, 0
		}
		w.nodes[first].Freeze()
		w.want(t, 2, "one", second)
	})
}

// A hit whose blobs nobody has is a miss, remembered, and nothing of it is served.
func TestIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		r := w.nodes[0].build(t, "one", "x")
		d, _ := digest.FromProto(digest.SHA256, r.OutputFiles[1].Digest)
		w.nodes[0].store.Lose(d)
		w.settle(t, 0, 1, actionOf("one"))
		w.want(t, 1, "one")
		w.want(t, 1, "one")
		if s := w.nodes[1].lookup.Stat(); s.Incomplete != 1 || s.Negative != 1 {
			t.Errorf("counts are %+v", s)
		}
	})
}

// A miss is remembered for NegativeFor and no longer: what was made meanwhile is found then.
func TestMissIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		r := w.nodes[0].build(t, "one", "x")
		d, _ := digest.FromProto(digest.SHA256, r.OutputFiles[1].Digest)
		w.nodes[0].store.Lose(d)
		w.settle(t, 0, 1, actionOf("one"))
		w.want(t, 1, "one")
		missed := time.Now()
		w.nodes[0].build(t, "one", "x") // it has all again
		w.settle(t, 0, 1, actionOf("one"))
		time.Sleep(lookup.NegativeFor - time.Millisecond - time.Since(missed))
		w.want(t, 1, "one")
		time.Sleep(2 * time.Millisecond)
		w.want(t, 1, "one", 0)
		if s := w.nodes[1].lookup.Stat(); s.Negative != 1 {
			t.Errorf("counts are %+v", s)
		}
	})
}

// Evicted blobs make their results forgotten: others no longer ask for them.
func TestSweep(t *testing.T) {
	w := newWorld(t, 2, mesh, nil)
	r := w.nodes[0].build(t, "one", "x")
	w.nodes[0].build(t, "two", "y")
	w.settle(t, 0, 1, actionOf("two"))
	d, _ := digest.FromProto(digest.SHA256, r.OutputFiles[0].Digest)
	w.nodes[0].store.Lose(d)
	keys, err := w.nodes[0].lookup.Keys()
	if err != nil || len(keys) != 2 {
		t.Fatal(len(keys), err)
	}
	if rest, err := w.nodes[0].lookup.Sweep(t.Context(), keys, 10); err != nil || len(rest) != 0 {
		t.Fatal(rest, err)
	}
	if n := w.nodes[0].summary.Publisher.Len(); n != 1 {
		t.Errorf("%d results are announced, want 1", n)
	}
}

// Liar signs another result than everybody else: the action is quarantined where both are seen, the evidence
// kept, and only one's own execution counts from then on.
func TestLiar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, quorum, nil)
		w.nodes[0].build(t, "one", "right")
		w.nodes[1].build(t, "one", "wrong")
		w.settle(t, 0, 2, actionOf("one"))
		w.settle(t, 1, 2, actionOf("one"))
		w.want(t, 2, "one")
		evidence, err := w.nodes[2].receipts.Evidence()
		if err != nil || len(evidence) != 1 || len(evidence[0].Receipts) != 2 {
			t.Fatalf("evidence %v, %v", evidence, err)
		}
		diff := receipt.Compare(evidence[0].Receipts[0].Result, evidence[0].Receipts[1].Result)
		if len(diff) != 3 {
			t.Errorf("differences are %v", diff)
		}
		w.nodes[2].build(t, "one", "right")
		w.want(t, 2, "one", 2)
		if s := w.nodes[2].lookup.Stat(); s.Disagreements != 2 {
			t.Errorf("counts are %+v", s)
		}
	})
}

// Two that agree are a quorum.
func TestQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, quorum, nil)
		w.nodes[0].build(t, "one", "x")
		w.settle(t, 0, 2, actionOf("one"))
		w.want(t, 2, "one")
		w.nodes[1].build(t, "two", "x")
		w.nodes[0].build(t, "two", "x")
		w.settle(t, 0, 2, actionOf("two"))
		w.settle(t, 1, 2, actionOf("two"))
		w.want(t, 2, "two", 0, 1)
	})
}

func TestPolicySelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, receipt.Policy{}, nil)
		w.nodes[0].build(t, "one", "x")
		w.settle(t, 0, 1, actionOf("one"))
		before := w.nodes[0].Calls()
		w.want(t, 1, "one")
		w.want(t, 0, "one", 0)
		if w.nodes[0].Calls() != before {
			t.Error("somebody was asked")
		}
	})
}

// What a revoked peer has signed is not believed, whoever shows it, as one does that has not heard of the revocation.
func TestRevokedExecutor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, shown := newWorldShowing(t, 3, 1)
		w.nodes[0].build(t, "one", "x")
		w.settle(t, 0, 1, actionOf("one"))
		w.want(t, 1, "one", 0)
		w.settle(t, 1, 2, actionOf("one"))
		raw, key := w.nodes[1].signed(t, "one")
		shown.answer = share.Answer{Receipts: [][]byte{raw}, Complete: true}
		w.trust.revoke(w.nodes[0].ID)
		w.want(t, 2, "one")
		w.forgers(t, 2)
		if s := w.nodes[2].lookup.Stat(); s.Refused == 0 {
			t.Errorf("counts are %+v", s)
		}
		// Who has heard of it shows nothing that others refuse, and takes back what it announced.
		if answers, err := w.nodes[1].lookup.Answers(t.Context(), []cid.Key{key}); err != nil || len(answers[0].Receipts) != 0 || answers[0].Complete {
			t.Errorf("answers are %+v, %v", answers, err)
		}
		if _, err := w.nodes[1].lookup.Sweep(t.Context(), []cid.Key{key}, 1); err != nil || w.nodes[1].summary.Publisher.Len() != 0 {
			t.Errorf("%d results are announced, %v", w.nodes[1].summary.Publisher.Len(), err)
		}
	})
}

// fixed answers every key with the same.
type fixed struct{ answer share.Answer }

func (f fixed) Answers(_ context.Context, keys []cid.Key) ([]share.Answer, error) {
	return slices.Repeat([]share.Answer{f.answer}, len(keys)), nil
}

// newWorldShowing is newWorld with one node that answers all questions with what the test sets.
func newWorldShowing(t testing.TB, n, which int) (w *world, shown *fixed) {
	shown = &fixed{}
	return newWorld(t, n, mesh, func(i int, _ *lookup.Lookup) share.Results {
		if i == which {
			return shown
		}
		return nil
	}), shown
}

// forgers checks whom a node takes for one that forges receipts.
func (w *world) forgers(t *testing.T, at int, want ...int) {
	t.Helper()
	got := w.nodes[at].lookup.Forgers()
	if len(got) != len(want) || len(want) > 0 && got[0] != w.nodes[want[0]].ID {
		t.Errorf("node %d takes %v for forgers, want %v", at, got, want)
	}
}

// Replayer answers with a good receipt of another action, or of another mesh.
func TestReplayer(t *testing.T) {
	for name, change := range map[string]func(*receipt.Statement){
		"another action": func(s *receipt.Statement) { s.Action = actionOf("other") },
		"another mesh":   func(s *receipt.Statement) { s.Mesh = "theirs" },
		"another root":   func(s *receipt.Statement) { s.Root[0]++ },
		"a failure":      func(s *receipt.Statement) { s.Result.ExitCode = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			w, answers := newWorldShowing(t, 2, 0)
			s := receipt.Statement{Mesh: "ours", Action: actionOf("one"), Root: root, Result: &repb.ActionResult{StdoutRaw: []byte("x")}}
			change(&s)
			r, err := receipt.Sign(w.nodes[0].identity, s)
			if err != nil {
				t.Fatal(err)
			}
			answers.answer = share.Answer{Receipts: [][]byte{r.Raw()}, Complete: true}
			w.nodes[0].summary.Publisher.Add([]cid.Key{keyer.Result(actionOf("one"), root)})
			w.settle(t, 0, 1, actionOf("one"))
			w.want(t, 1, "one")
			if s := w.nodes[1].lookup.Stat(); s.Refused == 0 || s.Hits != 0 {
				t.Errorf("counts are %+v", s)
			}
			w.forgers(t, 1, 0)
		})
	}
}

// A summary that lies in both directions: what it claims without having costs bounded questions, what it
// hides costs an execution, never a wrong result. In a bubble, for an answer that is late is no claim.
func TestLyingSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		var claimed []cid.Key
		const n = 400
		for i := range n {
			claimed = append(claimed, keyer.Result(actionOf(fmt.Sprint(i)), root))
		}
		w.nodes[0].summary.Publisher.Add(claimed)
		w.nodes[0].build(t, "hidden", "x")
		w.nodes[0].summary.Publisher.Remove([]cid.Key{keyer.Result(actionOf("hidden"), root)})
		w.nodes[0].summary.Publisher.Flush()
		w.settle(t, 0, 1, actionOf(fmt.Sprint(n-1)))
		before := w.nodes[0].Calls()
		for i := range n {
			w.want(t, 1, fmt.Sprint(i))
		}
		if calls := w.nodes[0].Calls() - before; calls > 128 {
			t.Errorf("%d questions for claims without substance", calls)
		}
		w.want(t, 1, "hidden")
	})
}

// Bomber: a result whose tree is larger than anything real. It is refused before it is fetched.
func TestHugeTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		huge := digest.New(digest.SHA256, [32]byte{1}, 1<<40)
		r := &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{Path: "dir", TreeDigest: huge.Proto()}}}
		key := actioncache.Key{Action: actionOf("one"), Root: root}
		if err := w.nodes[0].lookup.Publish(t.Context(), w.nodes[0].identity, receipt.Statement{Action: key.Action, Root: root, Result: r}); err != nil {
			t.Fatal(err)
		}
		w.settle(t, 0, 1, key.Action)
		w.want(t, 1, "one")
		w.forgers(t, 1, 0)
	})
}

// A cancelled lookup leaves the others their own.
func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		w.nodes[0].build(t, "one", "x")
		w.settle(t, 0, 1, actionOf("one"))
		w.connected(t)
		w.nodes[0].Freeze()
		ctx, cancel := context.WithCancel(t.Context())
		var looking sync.WaitGroup
		looking.Go(func() {
			if _, err := w.nodes[1].lookup.Find(ctx, lookup.Query{Action: actionOf("one"), Roots: roots}); err == nil {
				t.Error("a cancelled lookup succeeds")
			}
		})
		synctest.Wait()
		if asked := w.nodes[1].lookup.Stat().Asked; asked != 1 {
			t.Errorf("asked for %d results", asked)
		}
		cancel()
		looking.Wait()
		w.nodes[0].Thaw()
		synctest.Wait()
		w.want(t, 1, "absent")
		w.want(t, 1, "one", 0) // that nobody waited for the answer makes it no miss
	})
}

// Results that go on to be announced after a restart.
func TestAnnounceAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		w.nodes[0].build(t, "one", "x")
		w.nodes[0].summary.Publisher.Remove([]cid.Key{keyer.Result(actionOf("one"), root)})
		w.nodes[0].summary.Publisher.Flush()
		if err := w.nodes[0].lookup.AnnounceAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.settle(t, 0, 1, actionOf("one"))
		w.want(t, 1, "one", 0)
	})
}

// A result that names the root of a directory comes whole, whatever the depth, in a few calls.
func TestRootDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, mesh, nil)
		const depth = 30
		maker := w.nodes[0]
		dir := &repb.Directory{Files: []*repb.FileNode{{Name: "deepest", Digest: maker.put(t, "deep down")}}}
		for range depth {
			b, err := proto.Marshal(dir)
			if err != nil {
				t.Fatal(err)
			}
			dir = &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "below", Digest: maker.put(t, string(b))}}}
		}
		b, err := proto.Marshal(dir)
		if err != nil {
			t.Fatal(err)
		}
		maker.publish(t, "one", &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{Path: "dir", RootDirectoryDigest: maker.put(t, string(b))}}})
		w.settle(t, 0, 1, actionOf("one"))
		before := maker.Calls()
		w.want(t, 1, "one", 0)
		if calls := maker.Calls() - before; calls > 5 {
			t.Errorf("%d calls for a tree %d directories deep", calls, depth)
		}
		if data, err := w.nodes[1].store.GetBatch(t.Context(), []digest.Digest{digest.SHA256.Of([]byte("deep down"))}); err != nil || data[0] == nil {
			t.Errorf("its file has not come: %v", err)
		}
	})
}
