package slot

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// waiter is one Acquire that runs in a goroutine and tells its name when it was granted.
func waiter(t *testing.T, p *Pool, name string, r Request, granted *[]string, mu *sync.Mutex) {
	t.Helper()
	go func() {
		s, err := p.Acquire(t.Context(), r)
		if err != nil {
			return
		}
		mu.Lock()
		*granted = append(*granted, name)
		mu.Unlock()
		s.Release()
	}()
	synctest.Wait() // so that the order of arrival is the order of the table
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name  string
		queue []string // priority:invocation:name, in order of arrival
		want  string
	}{
		{"first come, first served", []string{"0:i:a", "0:i:b", "0:i:c"}, "a b c"},
		{"lower number first", []string{"5:i:a", "0:i:b", "-5:i:c"}, "c b a"},
		{"invocations in turn", []string{"0:i:a", "0:i:b", "0:i:c", "0:j:d", "0:j:e", "0:k:f"}, "a d f b e c"},
		{"priority before turns", []string{"0:i:a", "0:j:b", "-1:i:c", "-1:i:d"}, "c d a b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New(Capacity{Cores: 1})
				first, err := p.Acquire(t.Context(), Request{})
				if err != nil {
					t.Fatal(err)
				}
				var granted []string
				var mu sync.Mutex
				for _, line := range c.queue {
					part := strings.Split(line, ":")
					var priority int32
					if _, err := fmt.Sscan(part[0], &priority); err != nil {
						t.Fatal(err)
					}
					waiter(t, p, part[2], Request{Priority: priority, Invocation: part[1]}, &granted, &mu)
				}
				if got := p.Stat().Waiting; got != len(c.queue) {
					t.Errorf("%d wait, want %d", got, len(c.queue))
				}
				first.Release()
				synctest.Wait()
				if got := strings.Join(granted, " "); got != c.want {
					t.Errorf("granted %q, want %q", got, c.want)
				}
				if s := p.Stat(); s.Running != 0 || s.Waiting != 0 || s.FreeCores != 1 {
					t.Errorf("afterwards %+v", s)
				}
			})
		})
	}
}

func TestTooLargeNamesTheProperty(t *testing.T) {
	p := New(Capacity{Cores: 2, MemoryBytes: 1 << 30})
	for property, r := range map[string]Request{
		"cores":  {Cores: 2.001},
		"memory": {MemoryBytes: 1<<30 + 1},
	} {
		_, err := p.Acquire(t.Context(), r)
		if e, ok := errors.AsType[*TooLargeError](err); !ok || e.Property != property {
			t.Errorf("%+v: %v, want a TooLargeError about %s", r, err, property)
		}
	}
	for _, r := range []Request{{Cores: -1}, {MemoryBytes: -1}} {
		if _, err := p.Acquire(t.Context(), r); err == nil {
			t.Errorf("%+v is granted", r)
		}
	}
	if s := p.Stat(); s.Waiting != 0 || s.Running != 0 {
		t.Errorf("refused requests left %+v", s)
	}
}

func TestMemoryIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Capacity{Cores: 8, MemoryBytes: 100})
		a, err := p.Acquire(t.Context(), Request{MemoryBytes: 60})
		if err != nil {
			t.Fatal(err)
		}
		var granted []string
		var mu sync.Mutex
		waiter(t, p, "wide", Request{MemoryBytes: 60}, &granted, &mu)
		waiter(t, p, "narrow", Request{MemoryBytes: 40}, &granted, &mu)
		if got := strings.Join(granted, " "); got != "narrow" {
			t.Errorf("granted %q while 40 bytes are free", got)
		}
		a.Release()
		synctest.Wait()
		if got := strings.Join(granted, " "); got != "narrow wide" {
			t.Errorf("granted %q", got)
		}
	})
	p := New(Capacity{Cores: 1})
	s, err := p.Acquire(t.Context(), Request{MemoryBytes: 1 << 60})
	if err != nil {
		t.Fatalf("memory is not shared out, and yet: %v", err)
	}
	s.Release()
}

func TestFractionsAddUp(t *testing.T) {
	p := New(Capacity{Cores: 1})
	var held []*Slot
	for range 10 {
		s, err := p.Acquire(t.Context(), Request{Cores: 0.1})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	if got := p.Stat().FreeCores; got != 0 {
		t.Errorf("%v cores are free after ten tenths", got)
	}
	for _, s := range held {
		s.Release()
		s.Release() // the second one counts for nothing
	}
	if got := p.Stat(); got.FreeCores != 1 || got.Running != 0 {
		t.Errorf("afterwards %+v", got)
	}
	small := New(Capacity{Cores: 0.5})
	s, err := small.Acquire(t.Context(), Request{})
	if err != nil {
		t.Fatalf("the default request on half a core: %v", err)
	}
	if s.Cores() != 0.5 {
		t.Errorf("holds %v cores", s.Cores())
	}
}

// TestWideIsNotStarved keeps a stream of narrow requests going past one that needs the whole machine.
func TestWideIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bypass = 5
		p := New(Capacity{Cores: 2, MaxBypass: bypass})
		running, err := p.Acquire(t.Context(), Request{Cores: 1})
		if err != nil {
			t.Fatal(err)
		}
		var granted []string
		var mu sync.Mutex
		waiter(t, p, "wide", Request{Cores: 2, Invocation: "w"}, &granted, &mu)
		for i := range 20 {
			waiter(t, p, fmt.Sprint(i), Request{Cores: 1, Invocation: "n"}, &granted, &mu)
		}
		if len(granted) != bypass {
			t.Errorf("%d narrow requests passed, want %d", len(granted), bypass)
		}
		running.Release()
		synctest.Wait()
		if len(granted) != 21 || granted[bypass] != "wide" {
			t.Errorf("granted %v", granted)
		}
	})
}

func TestCancelledWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Capacity{Cores: 1, MaxBypass: 1})
		running, err := p.Acquire(t.Context(), Request{Cores: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := p.Acquire(ctx, Request{Cores: 1})
			failed <- err
		}()
		synctest.Wait()
		var granted []string
		var mu sync.Mutex
		waiter(t, p, "a", Request{Cores: 0.5}, &granted, &mu)
		waiter(t, p, "b", Request{Cores: 0.5}, &granted, &mu)
		if strings.Join(granted, " ") != "a" {
			t.Fatalf("granted %v, want b held back by the wide one", granted)
		}
		cancel(reason)
		synctest.Wait()
		if err := <-failed; !errors.Is(err, reason) {
			t.Errorf("the waiter ended with %v", err)
		}
		if strings.Join(granted, " ") != "a b" {
			t.Errorf("granted %v: whoever waited behind the one that left was not woken", granted)
		}
		running.Release()
		if s := p.Stat(); s.Waiting != 0 || s.FreeCores != 1 {
			t.Errorf("afterwards %+v", s)
		}
		if _, err := p.Acquire(ctx, Request{}); !errors.Is(err, reason) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}

// TestGrantAndCancelAtOnce makes both happen before the waiter looks: whichever it sees, nothing is lost.
func TestGrantAndCancelAtOnce(t *testing.T) {
	for range 64 {
		synctest.Test(t, func(t *testing.T) {
			p := New(Capacity{Cores: 1})
			running, err := p.Acquire(t.Context(), Request{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if s, err := p.Acquire(ctx, Request{}); err == nil {
					s.Release()
				}
			}()
			synctest.Wait()
			p.mu.Lock() // nobody can look before both are true
			p.giveBack(running.held)
			p.grantAll()
			cancel()
			p.mu.Unlock()
			<-done
			if s := p.Stat(); s.FreeCores != 1 || s.Running != 0 {
				t.Fatalf("afterwards %+v", s)
			}
		})
	}
}

// TestNeverMoreThanThereIs runs many callers, some of which give up, and watches the sum of what is held.
func TestNeverMoreThanThereIs(t *testing.T) {
	p := New(Capacity{Cores: 3, MemoryBytes: 1000})
	var milli, bytes atomic.Int64
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				go cancel()
			}
			r := Request{Cores: float64(i%5)*0.5 + 0.5, MemoryBytes: int64(i % 400), Priority: int32(i % 3), Invocation: fmt.Sprint(i % 7)}
			s, err := p.Acquire(ctx, r)
			if err != nil {
				return
			}
			if m, b := milli.Add(int64(r.Cores*1000)), bytes.Add(r.MemoryBytes); m > 3000 || b > 1000 {
				t.Errorf("%d thousandths of a core and %d bytes are held", m, b)
			}
			milli.Add(-int64(r.Cores * 1000))
			bytes.Add(-r.MemoryBytes)
			s.Release()
		})
	}
	wg.Wait()
	want := Stat{Cores: 3, FreeCores: 3, MemoryBytes: 1000, FreeMemoryBytes: 1000}
	if got := p.Stat(); !reflect.DeepEqual(got, want) {
		t.Errorf("afterwards %+v", got)
	}
}

func TestPoolWithoutCoresPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(Capacity{})
}

func BenchmarkAcquireWith10000Waiting(b *testing.B) {
	p := New(Capacity{Cores: 2})
	held, err := p.Acquire(b.Context(), Request{Cores: 1.5})
	if err != nil {
		b.Fatal(err)
	}
	p.mu.Lock()
	for i := range 10000 {
		p.queue.push(&entry{want: amount{millicores: 1000}, priority: 1, invocation: fmt.Sprint(i % 4), granted: make(chan struct{})})
	}
	p.mu.Unlock()
	b.ResetTimer()
	for b.Loop() {
		s, err := p.Acquire(b.Context(), Request{Cores: 0.5})
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
	held.Release()
}
