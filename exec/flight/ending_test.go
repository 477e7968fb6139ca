package flight

import (
	"errors"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/exec/platform"
)

// TestEnding: of every flight that is over its owner is told how the look-up went, and the client where a hit is from; of what
// nobody fulfils it is told too.
func TestEnding(t *testing.T) {
	var told []Ending
	l := newLab(t, func(o *Options) {
		o.Ended = func(e Ending) { told = append(told, e) }
		o.Match = func(r platform.Request) error { return r.Match(platform.Offer{}) }
	})
	last := func() Ending {
		if len(told) == 0 {
			t.Fatal("nobody was told")
		}
		return told[len(told)-1]
	}
	run := func(r Request) State {
		f := l.execute(t, r)
		(<-l.executor.runs).end <- good("x")
		return done(t, f)
	}
	r := l.action(t, "a")
	run(r)
	if e := last(); !e.Lookup.Asked || !errors.Is(e.Lookup.Err, ErrNotCached) || e.Request.Action != r.Action || e.Response.GetCachedResult() {
		t.Errorf("a miss: %+v", e)
	}
	l.results.stored[r.Action].ExecutionMetadata = &repb.ExecutedActionMetadata{Worker: "cleo"}
	l.results.from = "ben"
	s := done(t, l.execute(t, r))
	if e := last(); e.Lookup.Err != nil || e.Lookup.From != "ben" || !e.Response.CachedResult || s.Response.Message != "found at ben, ran on cleo" {
		t.Errorf("a hit: %+v, %q", e, s.Response.Message)
	}
	r.SkipCacheLookup = true
	run(r)
	if e := last(); e.Lookup.Asked {
		t.Errorf("not asked: %+v", e)
	}
	r = l.action(t, "b")
	l.results.panicks = true
	run(r)
	if e := last(); !e.Lookup.Asked || e.Lookup.Err == nil || errors.Is(e.Lookup.Err, ErrNotCached) {
		t.Errorf("a broken cache: %+v", e)
	}
	r = l.action(t, "c", func(a *repb.Action) {
		a.Platform = &repb.Platform{Properties: []*repb.Platform_Property{{Name: "Pool", Value: "gpu"}}}
	})
	if _, err := l.Execute(t.Context(), r); err == nil {
		t.Fatal("what nobody fulfils is accepted")
	}
	if e := last(); !e.Refused || e.Request.Action != r.Action || e.Lookup.Asked || !strings.Contains(e.Response.GetStatus().GetMessage(), "Pool") {
		t.Errorf("refused: %+v", e)
	}
}
