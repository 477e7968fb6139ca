package lookup_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/distance"
	"github.com/buildmesh/buildmesh/dht/lookup"
	"github.com/buildmesh/buildmesh/dht/receipt"
)

func TestWorth(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name      string
		run       time.Duration
		bytes     int64
		rtt       time.Duration
		bandwidth float64
		is        bool
	}{
		{"nothing is known", 0, 0, 0, 0, true},
		{"the action is not known", 0, 1 << 30, time.Second, 1, true},
		{"the distance is not known", 1, 1 << 30, 0, 0, true},
		{"three ways take as long", 300 * ms, 0, 100 * ms, 0, false},
		{"three ways take less", 301 * ms, 0, 100 * ms, 0, true},
		{"how fast bytes come is not known", 301 * ms, 1 << 40, 100 * ms, 0, true},
		{"the bytes take longer", 1300 * ms, 1 << 20, 100 * ms, 1 << 20, false},
		{"the bytes take less", 1301 * ms, 1 << 20, 100 * ms, 1 << 20, true},
		{"bytes without end", 1 << 62, 1 << 62, 0, 1e-9, false},
	} {
		if is := lookup.Worth(lookup.Cost{Run: c.run, Bytes: c.bytes}, distance.Distance{RTT: c.rtt, Bandwidth: c.bandwidth}); is != c.is {
			t.Errorf("%s: worth asking is %v, want %v", c.name, is, c.is)
		}
	}
}

// expecting looks for a result at a node that expects running to take so long, and reports whether there is one.
func (w *world) expecting(t *testing.T, at int, name string, run time.Duration) bool {
	t.Helper()
	q := lookup.Query{Action: actionOf(name), Roots: roots, Expect: func() lookup.Cost { return lookup.Cost{Run: run} }}
	_, err := w.nodes[at].lookup.Find(t.Context(), q)
	if err != nil && !errors.Is(err, lookup.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// The other site is asked as long as nobody knows how far it is; then only for what takes longer to run than to fetch. What
// was not asked for is no miss that is remembered. Time stands still between messages, so no answer comes too late.
func TestCheapActionsStayAtTheirSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 20 * time.Millisecond
		w := newSites(t, []string{"a", "a", "b", "b", "b"}, receipt.Policy{Agree: 1}, nil)
		w.net.SetDelay(delay)
		w.connected(t)
		_, others := w.bridges("b")
		maker := others[0]
		const far = 6
		name := func(i int) string { return fmt.Sprint("far ", i) }
		for i := range far {
			w.nodes[maker].build(t, name(i), name(i))
		}
		w.spread(t, name(far-1), maker)
		if !w.expecting(t, 0, name(0), time.Nanosecond) {
			t.Fatal("the first result is not found: nobody knows yet how far it is")
		}
		for i := 1; i < distance.Enough; i++ {
			if !w.expecting(t, 0, name(i), time.Hour) {
				t.Fatalf("%s is not found", name(i))
			}
		}
		if d := w.nodes[0].distance.To("b"); d.RTT != 2*delay {
			t.Fatalf("a way there and back takes %v, want %v", d.RTT, 2*delay)
		}
		before := w.net.Crossed()
		for i := distance.Enough; i < far; i++ {
			if w.expecting(t, 0, name(i), 3*delay) {
				t.Errorf("%s is found though it takes less to run", name(i))
			}
		}
		if n := w.net.Crossed() - before; n != 0 {
			t.Errorf("cheap actions sent %d messages to the other site", n)
		}
		if s := w.nodes[0].lookup.Stat(); s.Spared != far-distance.Enough || s.Negative != 0 {
			t.Errorf("%+v after %d lookups that were not worth it", s, far-distance.Enough)
		}
		for i := distance.Enough; i < far; i++ {
			if !w.expecting(t, 0, name(i), time.Hour) {
				t.Errorf("%s is not found though it takes an hour to run", name(i))
			}
		}
	})
}

// Blobs of other sites tell how fast bytes come from there, those that travel together and those that travel alone.
func TestBytesFromAfarAreMeasured(t *testing.T) {
	for kind, size := range map[string]int{"together": 100 << 10, "alone": 2 << 20} {
		t.Run(kind, func(t *testing.T) {
			w := newSites(t, []string{"a", "b"}, receipt.Policy{Agree: 1}, nil)
			w.net.SetDelay(time.Millisecond)
			w.connected(t)
			const most = 40 // a busy machine may move the bytes in less time than its answers take
			name := func(i int) string { return fmt.Sprint(kind, i) }
			for i := range most {
				w.nodes[1].publish(t, name(i), &repb.ActionResult{StdoutDigest: w.nodes[1].put(t, strings.Repeat(name(i), size/len(name(i))))})
			}
			w.spread(t, name(most-1), 1)
			known := 0
			for known < most && w.nodes[0].distance.To("b").Bandwidth == 0 {
				w.want(t, 0, name(known), 1)
				known++
			}
			if known < distance.Enough || known == most {
				t.Errorf("%d transfers make it known, want %d or a few more", known, distance.Enough)
			}
		})
	}
}
