package power

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeReader is a Reader whose facts a test sets.
type fakeReader struct {
	mu    sync.Mutex // guards both
	facts Facts
	err   error
}

func (r *fakeReader) set(f Facts, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts, r.err = f, err
}

func (*fakeReader) Name() string { return "fake" }

func (r *fakeReader) Read(_ context.Context, f *Facts) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		*f = r.facts
	}
	return r.err
}

func TestGovernor(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		reader, guests := &fakeReader{}, 0
		var heard []string
		var looked Facts
		open := func() *Governor {
			g, err := New(Options{Dir: dir, Policy: DefaultPolicy(), Readers: []Reader{reader},
				Guests: func() int { return guests }, Looked: func(f Facts) { looked = f }, Changed: func(s Status) { heard = append(heard, told(s)) }})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		g := open()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { g.Run(ctx); close(ended) }()
		reader.set(Facts{OnBattery: true, Charge: 50}, nil)
		time.Sleep(3 * time.Second) // of the bubble's own time
		synctest.Wait()
		if s := g.Status(); s.State != Closed {
			t.Errorf("unplugged: %v", s)
		}
		if want := (Facts{OnBattery: true, Charge: 50}); looked != want {
			t.Errorf("looked at %+v, want %+v", looked, want)
		}
		reader.set(Facts{}, errors.New("gone"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := g.Status(); s.State != Open {
			t.Errorf("a fact that cannot be read keeps it %v", s)
		}
		if _, faults := g.Facts(); faults["fake"] == nil {
			t.Error("what cannot be read is not told")
		}
		if err := g.Pause(ctx, time.Now().Add(2*time.Hour), false); err != nil || g.Status().State != Closed {
			t.Errorf("paused: %v, %v", g.Status(), err)
		}
		cancel()
		<-ended
		time.Sleep(time.Hour) // the node restarts
		g = open()
		if s := g.Status(); s.State != Closed || s.Reason != "paused" || time.Until(s.Until) != time.Hour {
			t.Errorf("after a restart: %v", s)
		}
		if err := g.Resume(t.Context()); err != nil || g.Status().State != Open {
			t.Errorf("resumed: %v, %v", g.Status(), err)
		}
		if _, err := os.Stat(filepath.Join(dir, PauseFile)); !os.IsNotExist(err) {
			t.Errorf("the pause is still kept: %v", err)
		}
		want := []string{"open", "closed: on battery (50 %)", "open", "closed: paused", "closed: paused", "open"}
		if len(heard) != len(want) {
			t.Fatalf("heard %q, want %q", heard, want)
		}
		for i := range want {
			if heard[i] != want[i] {
				t.Errorf("heard %q, want %q", heard[i], want[i])
			}
		}
	})
}

func TestDamagedPauseIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, PauseFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if g, err := New(Options{Dir: dir, Policy: DefaultPolicy()}); err != nil || g.Status().State != Open {
		t.Errorf("%v, %v", g, err)
	}
	g, err := New(Options{Dir: filepath.Join(dir, "absent"), Policy: DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Pause(t.Context(), time.Time{}, false); err == nil || g.Status().State != Open {
		t.Errorf("a pause that cannot be kept: %v, state %v", err, g.Status())
	}
}
