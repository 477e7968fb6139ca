package flight

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/slot"
)

// fakeMerger is a Merger and the Merge of every action, which the test leads. Its calls are written down.
type fakeMerger struct {
	calls   []string // what a flight calls comes from its one goroutine
	nobody  bool     // it is nobody else's business
	earlier func()
	await   chan awaited
}

// awaited is what waiting for another node's run brings.
type awaited struct {
	result *repb.ActionResult
	err    error
}

func (f *fakeMerger) Begin(context.Context, *action.Action, Request) Merge {
	f.calls = append(f.calls, "begin")
	if f.nobody {
		return nil
	}
	return f
}

func (f *fakeMerger) Running(earlier func()) {
	f.calls, f.earlier = append(f.calls, "running"), earlier
}

func (f *fakeMerger) Await(ctx context.Context) (*repb.ActionResult, string, error) {
	f.calls = append(f.calls, "await")
	select {
	case a := <-f.await:
		return a.result, "ben", a.err
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
}

func (f *fakeMerger) End(made bool) {
	if made {
		f.calls = append(f.calls, "made")
	} else {
		f.calls = append(f.calls, "ended")
	}
}

// did fails the test unless the calls were these.
func (f *fakeMerger) did(t testing.TB, calls string) {
	t.Helper()
	if got := strings.Join(f.calls, " "); got != calls {
		t.Errorf("calls: %s; want %s", got, calls)
	}
}

// merging runs a test with a table that has a Merger and one slot, in a bubble of its own time.
func merging(t *testing.T, test func(t *testing.T, l *lab, m *fakeMerger, told *Ending)) {
	synctest.Test(t, func(t *testing.T) {
		m, told := &fakeMerger{await: make(chan awaited)}, &Ending{}
		l := newLab(t, func(o *Options) {
			o.Merger, o.Slots, o.Ended = m, slot.New(slot.Capacity{Cores: 1}), func(e Ending) { *told = e }
		})
		test(t, l, m, told)
	})
}

// TestMerged: a run that another node began before is ended, its slot is free while that one is waited for, and the flight
// is answered with its result, which others read too and is left as it is.
func TestMerged(t *testing.T) {
	merging(t, func(t *testing.T, l *lab, m *fakeMerger, told *Ending) {
		f := l.execute(t, l.action(t, "a"))
		r := <-l.executor.runs
		m.earlier()
		<-r.ctx.Done()
		if !errors.Is(context.Cause(r.ctx), ErrMerged) {
			t.Errorf("the run was ended by %v", context.Cause(r.ctx))
		}
		other := l.execute(t, l.action(t, "b", uncached)) // there is one slot
		(<-l.executor.runs).end <- good("b")
		done(t, other)
		theirs := &repb.ActionResult{StdoutRaw: []byte("theirs"), ExecutionMetadata: &repb.ExecutedActionMetadata{Worker: "cleo"}}
		m.await <- awaited{result: theirs}
		s := done(t, f)
		if s.Response.CachedResult || codeIn(s) != codes.OK || string(s.Response.Result.StdoutRaw) != "theirs" || s.Response.Message != "merged with ben's, ran on cleo" {
			t.Errorf("%v", s.Response)
		}
		if told.Merged != "ben" || told.Vain != nil || told.Placement != nil {
			t.Errorf("%+v", told)
		}
		if theirs.ExecutionMetadata.QueuedTimestamp != nil {
			t.Error("a result that is not the flight's own was changed")
		}
		if len(l.results.stored) != 0 {
			t.Error("the flight stored what the Merger has stored")
		}
		m.did(t, "begin running await ended")
	})
}

// TestMergedInVain: when the other node brings nothing, the action runs here, and the journal is told why that took so long.
func TestMergedInVain(t *testing.T) {
	merging(t, func(t *testing.T, l *lab, m *fakeMerger, told *Ending) {
		f := l.execute(t, l.action(t, "a"))
		for _, why := range []string{"it left", "it brought no result"} {
			<-l.executor.runs
			m.earlier()
			m.await <- awaited{err: errors.New(why)}
		}
		(<-l.executor.runs).end <- good("ours")
		s := done(t, f)
		if codeIn(s) != codes.OK || s.Response.Result.OutputFiles[0].Path != "ours" || told.Merged != "" || told.Vain == nil || told.Vain.Error() != "it brought no result" {
			t.Errorf("%v\n%+v", s.Response, told)
		}
		m.did(t, "begin running await running await running made")
	})
}

// TestMergedWithAnother: when the one that was waited for brings nothing and another began meanwhile, that one is waited for.
func TestMergedWithAnother(t *testing.T) {
	merging(t, func(t *testing.T, l *lab, m *fakeMerger, told *Ending) {
		f := l.execute(t, l.action(t, "a"))
		for _, brings := range []awaited{{err: errors.New("it left")}, {result: &repb.ActionResult{StdoutRaw: []byte("theirs")}}} {
			<-l.executor.runs
			m.earlier()
			m.await <- brings
		}
		if s := done(t, f); string(s.Response.Result.StdoutRaw) != "theirs" || told.Merged != "ben" || told.Vain == nil || told.Vain.Error() != "it left" {
			t.Errorf("%v\n%+v", s.Response, told)
		}
		m.did(t, "begin running await running await ended")
	})
}

// TestMergedTooLate: a run that is over when another one's begin becomes known counts.
func TestMergedTooLate(t *testing.T) {
	merging(t, func(t *testing.T, l *lab, m *fakeMerger, told *Ending) {
		f := l.execute(t, l.action(t, "a"))
		(<-l.executor.runs).end <- good("ours")
		s := done(t, f)
		m.earlier()
		if s.Response.Result.OutputFiles[0].Path != "ours" || told.Merged != "" {
			t.Errorf("%v", s.Response)
		}
		m.did(t, "begin running made")
	})
}

// TestCancelledWhileMerged: a flight that waits for another node's run is cancelled like one that runs.
func TestCancelledWhileMerged(t *testing.T) {
	merging(t, func(t *testing.T, l *lab, m *fakeMerger, _ *Ending) {
		f := l.execute(t, l.action(t, "a"))
		<-l.executor.runs
		m.earlier()
		synctest.Wait()
		f.Cancel()
		if s := done(t, f); codeIn(s) != codes.Canceled {
			t.Errorf("%v", s.Response)
		}
		m.did(t, "begin running await ended")
	})
}

// TestMergerIsAsked: only about actions whose result of another run would do, and told whether there is a result.
func TestMergerIsAsked(t *testing.T) {
	failed := ending{outcome: &Outcome{Result: &repb.ActionResult{ExitCode: 1}}}
	for _, c := range []struct {
		name   string
		skip   bool
		nobody bool
		bend   []func(*repb.Action)
		ending ending
		calls  string
	}{
		{name: "it succeeds", ending: good("x"), calls: "begin running made"},
		{name: "it fails", ending: failed, calls: "begin running ended"},
		{name: "the executor panics", ending: ending{panics: "broken"}, calls: "begin running ended"},
		{name: "skip_cache_lookup", skip: true, ending: good("x")},
		{name: "do_not_cache", bend: []func(*repb.Action){uncached}, ending: good("x")},
		{name: "nobody else's business", nobody: true, ending: good("x"), calls: "begin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			merging(t, func(t *testing.T, l *lab, m *fakeMerger, _ *Ending) {
				m.nobody = c.nobody
				r := l.action(t, "a", c.bend...)
				r.SkipCacheLookup = c.skip
				f := l.execute(t, r)
				(<-l.executor.runs).end <- c.ending
				done(t, f)
				m.did(t, c.calls)
			})
		})
	}
}
