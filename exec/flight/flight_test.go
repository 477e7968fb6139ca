package flight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/exec/slot"
)

// TestLifeOfAFlight follows one action from its request to a cached answer for the next.
func TestLifeOfAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := slot.New(slot.Capacity{Cores: 1})
		l := newLab(t, func(o *Options) { o.Slots = pool; o.Worker = "here" })
		taken, err := pool.Acquire(t.Context(), slot.Request{})
		if err != nil {
			t.Fatal(err)
		}
		f := l.execute(t, l.action(t, "a"))
		var stages []repb.ExecutionStage_Value
		var versions []uint64
		watched := make(chan struct{})
		first, err := f.Wait(t.Context(), 0)
		if err != nil || first.Version == 0 {
			t.Fatalf("first state %+v, %v", first, err)
		}
		go func() {
			defer close(watched)
			for s := first; ; s, _ = f.Wait(t.Context(), s.Version) {
				stages, versions = append(stages, s.Stage), append(versions, s.Version)
				if s.Done() {
					return
				}
			}
		}()
		synctest.Wait()
		if s := f.State(); s.Stage != repb.ExecutionStage_QUEUED || s.Metadata.GetQueuedTimestamp() == nil {
			t.Errorf("without a slot: %+v", s)
		}
		time.Sleep(3 * time.Second) // in the queue
		taken.Release()
		r := <-l.executor.runs
		r.observer.Output("/out", "/err")
		r.observer.Metadata(&repb.ExecutedActionMetadata{Worker: "me"})
		s := f.State()
		if s.Stage != repb.ExecutionStage_EXECUTING || s.StdoutStream != "stream/out" || s.StderrStream != "stream/err" ||
			s.Metadata.GetWorker() != "me" || s.Metadata.GetQueuedTimestamp() == nil {
			t.Errorf("while it runs: %+v", s)
		}
		e := good("x")
		e.outcome.Message = "ran here"
		r.end <- e
		<-watched
		s = f.State()
		m := s.Response.Result.ExecutionMetadata
		if s.Response.CachedResult || codeIn(s) != codes.OK || s.Response.Message != "ran here" || m.Worker != "here" {
			t.Errorf("response %v", s.Response)
		}
		if waited := time.Since(m.QueuedTimestamp.AsTime()); waited != 3*time.Second {
			t.Errorf("queued %s ago, want 3s", waited)
		}
		for i := 1; i < len(stages); i++ {
			if stages[i] < stages[i-1] || versions[i] <= versions[i-1] {
				t.Errorf("stages %v, versions %v: out of order", stages, versions)
			}
		}
		if !slices.Equal(l.streams.finished, []string{"/out", "/err"}) {
			t.Errorf("finished streams %v", l.streams.finished)
		}
		if pool.Stat().Running != 0 {
			t.Error("the slot was not released")
		}
		again := done(t, l.execute(t, l.action(t, "a")))
		if !again.Response.CachedResult || again.Response.Result.OutputFiles[0].Path != "x" {
			t.Errorf("second time: %v", again.Response)
		}
	})
}

func TestCacheRules(t *testing.T) {
	failed := ending{outcome: &Outcome{Result: &repb.ActionResult{ExitCode: 1}}}
	broken := ending{outcome: &Outcome{Result: &repb.ActionResult{StdoutRaw: []byte("half")}}, err: errors.New("out of time")}
	for _, c := range []struct {
		name             string
		cached           bool // beforehand
		skip, doNotCache bool
		ending           ending
		runs, stored     bool
	}{
		{"miss", false, false, false, good("new"), true, true},
		{"hit", true, false, false, ending{}, false, false},
		{"skip_cache_lookup runs and overwrites", true, true, false, good("new"), true, true},
		{"do_not_cache neither asks nor stores", true, false, true, good("new"), true, false},
		{"a failed action is not stored", false, false, false, failed, true, false},
		{"an error is not stored, whatever came with it", false, false, false, broken, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				r := l.action(t, "a", func(a *repb.Action) { a.DoNotCache = c.doNotCache })
				r.SkipCacheLookup, r.Meta = c.skip, Meta{Mnemonic: "Compile"}
				if c.cached {
					l.results.stored[r.Action] = &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "old"}}}
				}
				f := l.execute(t, r)
				if c.runs {
					(<-l.executor.runs).end <- c.ending
				}
				s := done(t, f)
				if s.Response.CachedResult == c.runs {
					t.Errorf("response %v", s.Response)
				}
				if c.ending.err != nil && (codeIn(s) != codes.Internal || string(s.Response.Result.GetStdoutRaw()) != "half") {
					t.Errorf("response %v, want the error and what came with it", s.Response)
				}
				stored := l.results.stored[r.Action]
				if got := stored.GetOutputFiles(); (len(got) == 1 && got[0].Path == "new") != c.stored {
					t.Errorf("stored %v", stored)
				}
				if !c.cached && !c.stored && stored != nil {
					t.Errorf("stored %v", stored)
				}
				if c.stored && stored.GetExecutionMetadata().GetWorker() == "" {
					t.Error("the stored result names no worker")
				}
				if l.results.asked > 0 && (c.skip || c.doNotCache) {
					t.Error("the cache was asked")
				}
				if l.results.asked > 0 && l.results.about != r.Meta {
					t.Errorf("the cache was asked for %+v, want %+v", l.results.about, r.Meta)
				}
			})
		})
	}
}

func TestCacheFaultsDoNotFailTheAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.results.putErr = errors.New("disk full")
		f := l.execute(t, l.action(t, "a"))
		(<-l.executor.runs).end <- good("x")
		if s := done(t, f); codeIn(s) != codes.OK || !strings.Contains(s.Response.Message, "disk full") {
			t.Errorf("response %v", s.Response)
		}
		l.results.panicks = true
		f = l.execute(t, l.action(t, "b"))
		(<-l.executor.runs).end <- good("x")
		if s := done(t, f); codeIn(s) != codes.OK || !strings.Contains(s.Response.Message, "cache is broken") {
			t.Errorf("response %v", s.Response)
		}
	})
}

func TestMerging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		plain := l.action(t, "a")
		skip, elsewhere := plain, plain
		skip.SkipCacheLookup, elsewhere.Instance = true, "elsewhere"
		a := l.execute(t, plain)
		for name, c := range map[string]struct {
			request Request
			same    bool
		}{
			"the same request":              {plain, true},
			"another action":                {l.action(t, "b"), false},
			"another instance":              {elsewhere, false},
			"one that skips the cache":      {skip, false},
			"do_not_cache of the same kind": {l.action(t, "a", uncached), false},
		} {
			if f := l.execute(t, c.request); (f == a) != c.same {
				t.Errorf("%s: merged %v, want %v", name, f == a, c.same)
			}
		}
		if first, second := l.execute(t, skip), l.execute(t, skip); first != second {
			t.Error("two that skip the cache do not merge")
		}
		lonely := l.action(t, "c")
		lonely.SkipCacheLookup = true
		skipping := l.execute(t, lonely)
		lonely.SkipCacheLookup = false
		if l.execute(t, lonely) != skipping {
			t.Error("one that would take a cached result does not join one that skips the cache")
		}
		if first, second := l.execute(t, l.action(t, "d", uncached)), l.execute(t, l.action(t, "d", uncached)); first == second {
			t.Error("two with do_not_cache merge")
		}
		synctest.Wait() // every flight has asked the cache before the first result is in it
		for range l.List() {
			(<-l.executor.runs).end <- good("x")
		}
		synctest.Wait()
		if f := l.execute(t, plain); f == a {
			t.Error("a request merges with a flight that has landed")
		}
	})
}

func TestFlightSurvivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		ctx, cancel := context.WithCancel(t.Context())
		f, err := l.Execute(ctx, l.action(t, "a"))
		if err != nil {
			t.Fatal(err)
		}
		r := <-l.executor.runs
		waited := make(chan error, 1)
		go func() {
			_, err := f.Wait(ctx, f.State().Version)
			waited <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-waited; !errors.Is(err, context.Canceled) {
			t.Errorf("Wait ended with %v", err)
		}
		time.Sleep(19 * time.Second)
		if r.ctx.Err() != nil {
			t.Fatal("the run ended with its caller")
		}
		r.end <- good("x")
		if s := done(t, f); codeIn(s) != codes.OK {
			t.Errorf("response %v", s.Response)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := slot.New(slot.Capacity{Cores: 1})
		l := newLab(t, func(o *Options) { o.Slots = pool })
		running := l.execute(t, l.action(t, "a"))
		r := <-l.executor.runs
		queued := l.execute(t, l.action(t, "b"))
		synctest.Wait()
		for name, f := range map[string]*Flight{"queued": queued, "running": running} {
			f.Cancel()
			f.Cancel()
			if s := done(t, f); codeIn(s) != codes.Canceled || s.Stage != repb.ExecutionStage_COMPLETED {
				t.Errorf("%s: %v", name, s)
			}
		}
		if !errors.Is(context.Cause(r.ctx), ErrCancelled) {
			t.Errorf("the run was ended by %v", context.Cause(r.ctx))
		}
		synctest.Wait()
		if s := pool.Stat(); s.Running != 0 || s.Waiting != 0 {
			t.Errorf("slots afterwards: %+v", s)
		}
		if len(l.results.stored) != 0 {
			t.Error("a cancelled action was cached")
		}
	})
}

// TestCancelledFlightTakesNobodyAlong asks again while the cancelled run is still being killed.
func TestCancelledFlightTakesNobodyAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stubborn := &stubbornExecutor{started: make(chan chan struct{}, 2)}
		l := newLab(t, func(o *Options) { o.Executor = stubborn })
		f := l.execute(t, l.action(t, "a"))
		release := <-stubborn.started
		f.Cancel()
		again := l.execute(t, l.action(t, "a"))
		if again == f {
			t.Fatal("a request joined a flight that is being cancelled")
		}
		close(release)
		if s := done(t, f); codeIn(s) != codes.Canceled {
			t.Errorf("cancelled: %v", s.Response)
		}
		if l.execute(t, l.action(t, "a")) != again {
			t.Error("the end of the cancelled flight took the new one out of the merge table")
		}
		close(<-stubborn.started)
		if s := done(t, again); codeIn(s) != codes.OK {
			t.Errorf("the new one: %v", s.Response)
		}
	})
}

// stubbornExecutor takes its time to kill an action: it ends when the test says so.
type stubbornExecutor struct{ started chan chan struct{} }

func (e *stubbornExecutor) Execute(ctx context.Context, _ *action.Action, _ Observer) (*Outcome, error) {
	release := make(chan struct{})
	e.started <- release
	<-release
	return good("x").outcome, ctx.Err()
}

func TestAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(o *Options) { o.Abandon = time.Minute })
		f := l.execute(t, l.action(t, "a"))
		r := <-l.executor.runs
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if s, err := f.Wait(ctx, f.State().Version); err == nil {
			t.Fatalf("a watched flight ended as %v", s.Response)
		}
		time.Sleep(50 * time.Second)
		if _, found := l.Find(f.Name()); !found {
			t.Fatal("not found")
		}
		time.Sleep(50 * time.Second) // looking it up counted
		l.List()
		f.State() // looking at it does not
		if r.ctx.Err() != nil {
			t.Fatal("abandoned too early")
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if !errors.Is(context.Cause(r.ctx), ErrAbandoned) {
			t.Errorf("ended by %v, want ErrAbandoned", context.Cause(r.ctx))
		}
		synctest.Wait()
		if s := f.State(); codeIn(s) != codes.Canceled {
			t.Errorf("response %v", s.Response)
		}
	})
}

func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(o *Options) { o.Retained = 3; o.Retention = time.Minute })
		var flights []*Flight
		for i := range 5 {
			f := l.execute(t, l.action(t, fmt.Sprint(i)))
			(<-l.executor.runs).end <- good("x")
			done(t, f)
			flights = append(flights, f)
			time.Sleep(time.Second)
		}
		for i, f := range flights {
			if _, found := l.Find(f.Name()); found != (i >= 2) {
				t.Errorf("flight %d: found %v", i, found)
			}
		}
		if got := l.List(); !slices.Equal(got, flights[2:]) {
			t.Errorf("listed %d flights, want the last three, oldest first", len(got))
		}
		time.Sleep(57*time.Second + time.Millisecond)
		if got := l.List(); !slices.Equal(got, flights[3:]) {
			t.Errorf("after a minute %d are listed, want two", len(got))
		}
		time.Sleep(2 * time.Second)
		if got := l.List(); len(got) != 0 {
			t.Errorf("in the end %d are listed", len(got))
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		f := l.execute(t, l.action(t, "a"))
		r := <-l.executor.runs
		if !l.Forget(f.Name()) || l.Forget(f.Name()) || l.Forget("operations/unknown") {
			t.Error("Forget tells wrongly what was known")
		}
		if _, found := l.Find(f.Name()); found {
			t.Error("a forgotten name is found")
		}
		r.end <- good("x")
		if s := done(t, f); codeIn(s) != codes.OK {
			t.Errorf("the forgotten flight ended with %v", s.Response)
		}
		if len(l.List()) != 0 {
			t.Error("a forgotten flight is retained")
		}
	})
}

func TestErrorsOfCreation(t *testing.T) {
	refuse := &platform.MismatchError{Property: "Pool", Asked: "gpu", Offered: nil}
	l := newLab(t, func(o *Options) {
		o.MaxFlights = 1
		o.Match = func(r platform.Request) error {
			if r.Pool != "" {
				return refuse
			}
			return nil
		}
	})
	_, err := l.Execute(t.Context(), Request{Action: digest.SHA256.Of([]byte("nothing"))})
	if _, ok := errors.AsType[*action.MissingError](err); !ok {
		t.Errorf("missing action: %v", err)
	}
	_, err = l.Execute(t.Context(), l.action(t, "a", func(a *repb.Action) {
		a.Platform = &repb.Platform{Properties: []*repb.Platform_Property{{Name: "Pool", Value: "gpu"}}}
	}))
	if e, ok := errors.AsType[*action.UnsupportedError](err); !ok || e.Property != "Pool" || !errors.Is(err, refuse) {
		t.Errorf("platform that nobody has: %v", err)
	}
	l.execute(t, l.action(t, "b"))
	if _, err = l.Execute(t.Context(), l.action(t, "c")); !errors.Is(err, ErrFull) {
		t.Errorf("one flight too many: %v", err)
	}
	l.execute(t, l.action(t, "b")) // joins, and so needs no room
	go func() { (<-l.executor.runs).end <- good("x") }()
	l.Close()
	if _, err = l.Execute(t.Context(), l.action(t, "d")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestErrorsOfRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := slot.New(slot.Capacity{Cores: 1})
		l := newLab(t, func(o *Options) { o.Slots = pool })
		for name, c := range map[string]struct {
			ending ending
			code   codes.Code
			text   string
		}{
			"an error":    {ending{err: errors.New("disk on fire")}, codes.Internal, "disk on fire"},
			"a panic":     {ending{panics: "index out of range"}, codes.Internal, "index out of range"},
			"no outcome":  {ending{}, codes.Internal, "no result"},
			"no result":   {ending{outcome: &Outcome{Message: "hm"}}, codes.Internal, "no result"},
			"unsupported": {ending{err: &action.UnsupportedError{Property: "Pool", Err: errors.New("gone")}}, codes.FailedPrecondition, "gone"},
		} {
			f := l.execute(t, l.action(t, name))
			(<-l.executor.runs).end <- c.ending
			s := done(t, f)
			if codeIn(s) != c.code || !strings.Contains(s.Response.Status.Message, c.text) {
				t.Errorf("%s: %v", name, s.Response)
			}
		}
		wide := l.execute(t, l.action(t, "wide", func(a *repb.Action) {
			a.Platform = &repb.Platform{Properties: []*repb.Platform_Property{{Name: "cores", Value: "64"}}}
		}))
		if s := done(t, wide); codeIn(s) != codes.FailedPrecondition || !strings.Contains(s.Response.Status.Message, "cores") {
			t.Errorf("wider than the machine: %v", s.Response)
		}
		if pool.Stat().Running != 0 {
			t.Error("an error kept its slot")
		}
	})
}

func TestWholeRootInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(o *Options) { o.WholeRootInstances = []string{"bst"} })
		for instance, want := range map[string]bool{"bst": true, "": false, "other": false} {
			r := l.action(t, "a")
			r.Instance = instance
			l.execute(t, r)
			run := <-l.executor.runs
			if run.action.WholeRoot != want {
				t.Errorf("instance %q: whole root %v", instance, run.action.WholeRoot)
			}
			run.end <- ending{err: errors.New("enough")}
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		known, forgotten := l.execute(t, l.action(t, "a")), l.execute(t, l.action(t, "b"))
		<-l.executor.runs
		<-l.executor.runs
		l.Forget(forgotten.Name())
		l.Close()
		for _, f := range []*Flight{known, forgotten} {
			if s := f.State(); !s.Done() || codeIn(s) != codes.Unavailable {
				t.Errorf("after Close: %+v", s)
			}
		}
	})
}

func TestLateNewsIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		f := l.execute(t, l.action(t, "a"))
		r := <-l.executor.runs
		r.end <- good("x")
		before := done(t, f)
		r.observer.Metadata(&repb.ExecutedActionMetadata{Worker: "late"})
		r.observer.Output("/late", "/late")
		if after := f.State(); after.Version != before.Version || after.Metadata.GetWorker() == "late" || after.StdoutStream != "" {
			t.Errorf("changed from %+v to %+v", before, after)
		}
		if len(l.streams.finished) != 0 {
			t.Errorf("streams %v were opened", l.streams.finished)
		}
	})
}

// TestManyAtOnce has many callers of few actions; each waits for its answer, some cancel.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t, func(o *Options) { o.Slots = slot.New(slot.Capacity{Cores: 4}); o.Retained = 10 })
	stop := make(chan struct{})
	var ender sync.WaitGroup
	ender.Go(func() {
		for {
			select {
			case r := <-l.executor.runs:
				r.end <- good("x")
			case <-stop:
				return
			}
		}
	})
	var requests []Request
	for i := range 5 {
		r := l.action(t, fmt.Sprint(i))
		r.SkipCacheLookup = i%2 == 0
		requests = append(requests, r)
	}
	var callers sync.WaitGroup
	for i := range 200 {
		callers.Go(func() {
			f, err := l.Execute(t.Context(), requests[i%len(requests)])
			if err != nil {
				t.Error(err)
				return
			}
			if i%10 == 0 {
				f.Cancel()
			}
			l.Find(f.Name())
			l.List()
			if s := done(t, f); codeIn(s) != codes.OK && codeIn(s) != codes.Canceled {
				t.Errorf("response %v", s.Response)
			}
		})
	}
	callers.Wait()
	close(stop)
	ender.Wait()
	if got := len(l.List()); got > 10 {
		t.Errorf("%d flights are retained, want at most 10", got)
	}
}

func TestOptionsNeedTheirParts(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(Options{})
}

// TestTarget: what BuildStream builds has the element's name, since its client names nothing; what a client says counts before
// that.
func TestTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		named := l.action(t, "a")
		command := l.blobs.put(t, &repb.Command{Arguments: []string{"sh", "-c", "make"}, WorkingDirectory: "buildstream/greeting/hello.bst"})
		element := l.action(t, "b", func(a *repb.Action) { a.CommandDigest = command.Proto() })
		said := element
		said.Meta.Target, said.SkipCacheLookup = "//mine", true
		for i, want := range []string{"", "greeting/hello.bst", "//mine"} {
			f := l.execute(t, []Request{named, element, said}[i])
			if got := f.Request().Meta.Target; got != want {
				t.Errorf("the target is %q, want %q", got, want)
			}
			if i == 1 && f.Words() != "sh -c make" {
				t.Errorf("its command begins with %q", f.Words())
			}
			f.Cancel()
			done(t, f)
		}
	})
}
