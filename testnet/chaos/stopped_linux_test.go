package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

// apart is a machine whose node keeps to itself what it can: it lends nothing, audits nothing and copies nothing, so that a
// result is where it was made until somebody asks for it.
var apart = lab.Machine{Settings: []string{
	"BUILDMESH_LEND_ENABLED=false", "BUILDMESH_MESH_AUDIT=0", "BUILDMESH_STORE_REPLICAS=1", "BUILDMESH_EXEC_CORES=2"}}

// client connects to a node until the test ends.
func client(t testing.TB, n *lab.Node) *Load {
	t.Helper()
	load, err := NewLoad(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(load.Close)
	return load
}

// makes has a node run so many small actions and gives them.
func makes(t testing.TB, load *Load, run string, count int) []*repb.Digest {
	t.Helper()
	const script = `echo "$1"`
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	actions, err := load.upload(t.Context(), run, script, names)
	if err != nil {
		t.Fatal(err)
	}
	for piece := range slices.Chunk(names, 100) {
		if _, err := load.Run(t.Context(), run, script, piece); err != nil {
			t.Fatal(err)
		}
	}
	return actions
}

// learns waits until a node has a result from another one.
func learns(t testing.TB, load *Load, action *repb.Digest) {
	t.Helper()
	eventually(t, "a result of another node", time.Minute, func(ctx context.Context) error {
		_, err := load.Result(ctx, action)
		return err
	})
}

// nobodys is an action that nobody has run.
func nobodys(i int64) *repb.Digest {
	sum := sha256.Sum256(fmt.Append(nil, "nobody's ", i))
	return &repb.Digest{Hash: hex.EncodeToString(sum[:]), SizeBytes: 100}
}

// A peer that is stopped takes nothing with it but what it alone has: results of others are found, others are misses. When
// it goes on, its results are found again.
func TestStoppedPeer(t *testing.T) {
	equipped(t)
	l := mesh(t, 3, apart)
	asking := client(t, l.Node("n1"))
	made := func(name string, count int) []*repb.Digest {
		load := client(t, l.Node(name))
		actions := makes(t, load, name, count)
		learns(t, asking, makes(t, load, name+" last", 1)[0]) // then those before it are known too
		return actions
	}
	awake, stopped := made("n2", 2), made("n3", 4)
	if err := l.Node("n3").Sleep(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := asking.Result(t.Context(), stopped[i]); status.Code(err) != codes.NotFound {
			t.Errorf("what only the stopped one has: %v", err)
		}
		if _, err := asking.Result(t.Context(), nobodys(int64(i))); status.Code(err) != codes.NotFound {
			t.Errorf("what nobody has: %v", err)
		}
		learns(t, asking, awake[i])
	}
	if err := l.Node("n3").Wake(); err != nil {
		t.Fatal(err)
	}
	for _, action := range stopped {
		learns(t, asking, action)
	}
}

// A node that stands still again and again, as on a machine that is busy, takes what others answer meanwhile: all their
// results are hits.
func TestStandstill(t *testing.T) {
	equipped(t)
	l := mesh(t, 2, apart)
	n := l.Node("n1")
	asking, all := client(t, n), makes(t, client(t, l.Node("n2")), "all", 200)
	learns(t, asking, all[len(all)-1])
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan int)
	go func() { // ends with ctx
		times := 0
		for sleep(ctx, 20*time.Millisecond) && n.Sleep() == nil {
			sleep(ctx, 60*time.Millisecond)
			_ = n.Wake()
			times++
		}
		stopped <- times
	}()
	missed := 0
	for _, action := range all {
		if _, err := asking.Result(t.Context(), action); err != nil {
			missed++
		}
	}
	cancel()
	if times := <-stopped; missed > 0 || times == 0 {
		t.Errorf("%d of %d were missed by a node that stood still %d times", missed, len(all), times)
	} else {
		t.Logf("it stood still %d times", times)
	}
}

// misses times lookups that find nothing.
type misses struct {
	load *Load

	mu   sync.Mutex // guards what follows
	all  []miss
	next atomic.Int64 // of what nobody has
}

// miss is one of them.
type miss struct {
	ended  time.Time
	took   time.Duration
	silent bool // nobody claims to have it
}

// look times one. A result that is found, as those of the stopped peer are until it stops, is no miss.
func (m *misses) look(ctx context.Context, action *repb.Digest, silent bool) error {
	began := time.Now()
	_, err := m.load.Result(ctx, action)
	ended := time.Now()
	if code := status.Code(err); code != codes.NotFound {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("a lookup that should find nothing: %v", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, miss{ended, ended.Sub(began), silent})
	return nil
}

// took are the times of some of them, in order.
func (m *misses) took(wanted func(miss) bool) []time.Duration {
	var all []time.Duration
	for _, one := range m.all {
		if wanted(one) {
			all = append(all, one.took)
		}
	}
	slices.Sort(all)
	return all
}

// BenchmarkStopped has callers look up on one of eight nodes what nobody has, while another one is stopped at a moment of
// chance, and from that moment on, fifty times a second, what only the stopped one has. It goes on until the mesh has
// long noticed. Run it:
//
//	go test ./testnet/chaos -run '^$' -bench 'Stopped$' -benchtime 1x
func BenchmarkStopped(b *testing.B) {
	if err := lab.Lacking(); err != nil {
		b.Skip(err)
	}
	const (
		callers = 8
		claims  = 50 // a second
		before  = 6 * time.Second
		after   = 14 * time.Second
	)
	l := mesh(b, 8, apart)
	m := &misses{load: client(b, l.Node("n1"))}
	held := makes(b, client(b, l.Node("n8")), "held", claims*int(after/time.Second)+1)
	learns(b, m.load, held[0])
	sleep(b.Context(), calm)
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		var asking sync.WaitGroup
		for range callers {
			asking.Go(func() {
				for ctx.Err() == nil {
					if err := m.look(ctx, nobodys(m.next.Add(1)), true); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		sleep(ctx, before+rand.N(time.Second))
		if err := l.Node("n8").Sleep(); err != nil {
			b.Fatal(err)
		}
		stopped := time.Now()
		tick := time.NewTicker(time.Second / claims)
		for _, action := range held[1:] {
			<-tick.C
			asking.Go(func() {
				if err := m.look(ctx, action, false); err != nil {
					b.Error(err)
				}
			})
		}
		tick.Stop()
		cancel()
		asking.Wait()
		awake := m.took(func(o miss) bool { return o.silent && o.ended.Before(stopped) })
		asleep := m.took(func(o miss) bool { return o.silent && !o.ended.Before(stopped) })
		claimed := m.took(func(o miss) bool { return !o.silent })
		report(b, "awake", awake)
		report(b, "stopped", asleep)
		report(b, "claimed", claimed)
		b.ReportMetric(asleep[len(asleep)*99/100].Seconds()/awake[len(awake)*99/100].Seconds(), "stopped/awake-p99")
		if err := l.Node("n8").Wake(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// report gives the quantiles of times in order.
func report(b *testing.B, name string, times []time.Duration) {
	b.Helper()
	for quantile, at := range map[string]int{"p50": len(times) / 2, "p99": len(times) * 99 / 100, "max": len(times) - 1} {
		b.ReportMetric(times[at].Seconds()*1000, name+"-"+quantile+"-ms")
	}
	b.Logf("%s: %d misses", name, len(times))
}
