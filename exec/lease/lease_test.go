package lease

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/run"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// inMesh runs a test in a bubble of its own time, with nodes 1 to n that know each other.
func inMesh(t *testing.T, n byte, test func(t *testing.T, m *fakeMesh, nodes []*fakeNode)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		nodes := []*fakeNode{nil}
		for i := byte(1); i <= n; i++ {
			nodes = append(nodes, m.node(i))
		}
		m.meet()
		test(t, m, nodes)
		m.close()
		for _, f := range nodes[1:] {
			if u := f.executor.Usage(); u.Running != 0 || u.FreeCores != u.Cores || f.store.pinned() != 0 {
				t.Errorf("node %d is left with %+v, %d pins", f.id[0], u, f.store.pinned())
			}
		}
	})
}

// TestLifeOfALease runs an action at a peer for minutes, and brings its output home.
func TestLifeOfALease(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		p := n[1].place(n[1].action("a"))
		r := <-n[2].runs
		if by := p.said.Load().GetWorker(); by != n[2].id.Short() {
			t.Errorf("whoever watches is told that it runs on %q before the first beat, not %q", by, n[2].id.Short())
		}
		if r.action.Arguments[0] != "a" {
			t.Fatalf("ran %v", r.action.Arguments)
		}
		time.Sleep(5 * time.Minute) // heartbeats both ways
		if u := n[2].executor.Usage(); u.Running != 1 || u.Guests != 1 {
			t.Fatalf("executor %+v", u)
		}
		r.done("made at 2")
		o, err := p.wait()
		if err != nil || len(o.Result.OutputFiles) != 1 {
			t.Fatalf("%v, %v", o, err)
		}
		d, _ := digest.FromProto(digest.SHA256, o.Result.OutputFiles[0].Digest)
		if got, _ := n[1].store.GetBatch(t.Context(), []digest.Digest{d}); string(got[0]) != "made at 2" {
			t.Error("the output is not here when the client is answered")
		}
		if a := o.Placement.Attempts; len(a) != 1 || a[0].Peer != n[2].id || !a[0].Won {
			t.Errorf("trace %+v", o.Placement)
		}
		synctest.Wait()
		if n[2].store.pinned() != 0 {
			t.Error("outputs stay pinned after Ack")
		}
		free()
	})
}

func TestOwnSlotsFirst(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		p := n[1].place(n[1].action("a"))
		(<-n[1].runs).done("x")
		if o, err := p.wait(); err != nil || !o.Placement.Attempts[0].Self {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

// TestTicket leaves a ticket at a busy peer and gets the slot that becomes free.
func TestTicket(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free1, free2 := n[1].busy(), n[2].busy()
		n[1].sees(n[2])
		p := n[1].place(n[1].action("a"))
		synctest.Wait()
		if u := n[2].executor.Usage(); u.Tickets != 1 || n[1].initiator.Waiting() != 1 {
			t.Fatalf("%+v, %d waiting", u, n[1].initiator.Waiting())
		}
		began := time.Now()
		free2()
		(<-n[2].runs).done("x")
		if _, err := p.wait(); err != nil || time.Since(began) > time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		free1()
	})
}

// TestChoicesDiffer: two members draw different numbers, else all would choose the same of equal peers.
func TestChoicesDiffer(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, _ *fakeMesh, n []*fakeNode) {
		if a, b := n[1].initiator.options.Place.Seed, n[2].initiator.options.Place.Seed; a == b {
			t.Errorf("both have the seed %d", a)
		}
	})
}

// TestExecutorLost stops hearing from an executor and runs the action elsewhere.
func TestExecutorLost(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		p := n[1].place(n[1].action("a"))
		var first *fakeRun
		select {
		case first = <-n[2].runs:
		case first = <-n[3].runs:
		}
		other := n[2]
		if first.node == n[2] {
			other = n[3]
		}
		m.mu.Lock()
		first.node.broken = true
		conn := m.conns[[2]peer.ID{n[1].id, first.node.id}]
		m.mu.Unlock()
		conn.Close()
		began := time.Now()
		second := <-other.runs
		if waited := time.Since(began); waited > TTL+2*time.Second {
			t.Errorf("given up after %s", waited)
		}
		second.done("x")
		o, err := p.wait()
		if err != nil || len(o.Placement.Attempts) != 2 || o.Placement.Attempts[1].Attempt != 2 {
			t.Errorf("%+v, %v", o, err)
		}
		<-first.ctx.Done() // 10 s + 10 s after the last beat
		if waited := time.Since(began); waited > TTL+Grace+time.Second {
			t.Errorf("the executor was freed after %s", waited)
		}
		free()
	})
}

// TestBrokenCall breaks the connection for a moment: the run goes on.
func TestBrokenCall(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		p := n[1].place(n[1].action("a"))
		r := <-n[2].runs
		m.mu.Lock()
		key := [2]peer.ID{n[1].id, n[2].id}
		m.conns[key].Close()
		delete(m.conns, key)
		m.mu.Unlock()
		time.Sleep(time.Minute)
		r.done("x")
		if o, err := p.wait(); err != nil || len(o.Placement.Attempts) != 1 {
			t.Errorf("%+v, %v", o, err)
		}
		free()
	})
}

func TestCancelKills(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		p := n[1].place(n[1].action("a"))
		r := <-n[2].runs
		began := time.Now()
		p.cancel()
		<-r.ctx.Done()
		if _, err := p.wait(); err == nil || time.Since(began) > time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		free()
		p = n[1].place(n[1].action("b"))
		r = <-n[1].runs
		p.cancel()
		p.wait()
		if r.ctx.Err() == nil {
			t.Error("the own run goes on")
		}
	})
}

func TestEvict(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		p := n[1].place(n[1].action("a"))
		var r *fakeRun
		select {
		case r = <-n[2].runs:
		case r = <-n[3].runs:
		}
		r.node.executor.Lend(0, "")
		r.node.executor.Evict(30 * time.Second)
		var again *fakeRun
		select {
		case again = <-n[2].runs:
		case again = <-n[3].runs:
		}
		if again.node == r.node {
			t.Error("it came back to who evicted it")
		}
		<-r.ctx.Done()
		again.done("x")
		if _, err := p.wait(); err != nil {
			t.Error(err)
		}
		free()
	})
}

// TestNodeFault makes a peer fail: the action runs elsewhere, and its client never sees the fault.
func TestNodeFault(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		p := n[1].place(n[1].action("a"))
		for range 2 {
			select {
			case r := <-n[2].runs:
				r.end <- ending{err: errors.New("disk on fire")}
			case r := <-n[3].runs:
				r.end <- ending{err: errors.New("disk on fire")}
			}
		}
		free()
		(<-n[1].runs).done("x")
		o, err := p.wait()
		if err != nil || len(o.Placement.Attempts) != 3 || !o.Placement.Attempts[2].Self {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

// TestActionsOwnFault is brought home as it is, from the first executor.
func TestActionsOwnFault(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		for _, c := range []struct {
			ending ending
			code   codes.Code
			exit   int32
		}{
			{ending{outcome: &flight.Outcome{Result: &repb.ActionResult{ExitCode: 3, StderrRaw: []byte("no")}}}, codes.OK, 3},
			{ending{err: &action.InvalidError{Field: "x", Reason: "y"}}, codes.InvalidArgument, 0},
			{ending{outcome: &flight.Outcome{Result: &repb.ActionResult{StderrRaw: []byte("half")}}, err: &run.TimeoutError{Timeout: time.Second}}, codes.Internal, 0},
		} {
			p := n[1].place(n[1].action("a"))
			(<-n[2].runs).end <- c.ending
			o, err := p.wait()
			if status.Code(err) != c.code || o.Result.GetExitCode() != c.exit || len(o.Placement.Attempts) != 1 {
				t.Errorf("%+v: %+v, %v", c, o, err)
			}
			if c.ending.outcome != nil && len(o.Result.GetStderrRaw()) == 0 {
				t.Errorf("%+v: stderr is lost", c)
			}
		}
		free()
	})
}

func TestMissingInput(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		a := n[1].action("a")
		n[1].store.mu.Lock()
		delete(n[1].store.data, a.InputRoot)
		n[1].store.mu.Unlock()
		_, err := n[1].place(a).wait()
		if missing, ok := errors.AsType[*action.MissingError](err); !ok || missing.Digests[0] != a.InputRoot {
			t.Errorf("%v", err)
		}
		free()
	})
}

// TestOutOfMemory is repeated with more, and its own error comes home when nobody has more.
func TestOutOfMemory(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		a := n[1].action("a", func(a *repb.Action) {
			a.Platform = &repb.Platform{Properties: []*repb.Platform_Property{{Name: "min-mem", Value: "200M"}}}
		})
		p := n[1].place(a)
		for try, want := range []int64{200 << 20, 1 << 30, machine.MemoryBytes} {
			at := n[2]
			if try == 2 { // the last word is this machine's
				free()
				at = n[1]
			}
			r := <-at.runs
			if r.action.Platform.MemoryBytes != want {
				t.Errorf("limit %d, want %d", r.action.Platform.MemoryBytes, want)
			}
			r.end <- ending{
				outcome: &flight.Outcome{Result: &repb.ActionResult{StderrRaw: []byte("killed")}},
				err:     &run.ResourceError{Resource: run.Memory, Limit: r.action.Platform.MemoryBytes},
			}
		}
		o, err := p.wait()
		if err == nil || string(o.Result.GetStderrRaw()) != "killed" {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

// TestMerge has two initiators ask for the same action at one executor: it runs once.
func TestMerge(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free1, free2 := n[1].busy(), n[2].busy()
		n[1].sees(n[2])
		n[2].sees(n[1])
		p1, p2 := n[1].place(n[1].action("a")), n[2].place(n[2].action("a"))
		synctest.Wait()
		p3 := n[3].place(n[3].action("a")) // its own machine wants it too
		synctest.Wait()
		r := <-n[3].runs
		if len(n[3].runs) != 0 {
			t.Fatal("it runs twice")
		}
		p1.cancel() // the others keep it alive
		p1.wait()
		r.done("once")
		for _, p := range []*placed{p2, p3} {
			if o, err := p.wait(); err != nil || len(o.Result.OutputFiles) != 1 {
				t.Errorf("%v, %v", o, err)
			}
		}
		free1()
		free2()
	})
}

// TestSampleIsBounded: how long a peer says that an action ran counts within what it took as seen from here.
func TestSampleIsBounded(t *testing.T) {
	for _, c := range []struct {
		says, took time.Duration
		own        bool
		want       time.Duration
	}{
		{says: 8 * time.Second, took: 10 * time.Second, want: 8 * time.Second},
		{says: time.Hour, took: 10 * time.Second, want: 10 * time.Second},
		{says: time.Millisecond, took: 10 * time.Second, want: 2500 * time.Millisecond},
		{says: -time.Hour, took: 10 * time.Second, want: 2500 * time.Millisecond},
		{says: time.Millisecond, took: 10 * time.Second, own: true, want: time.Millisecond},
		{says: 0, took: 0, want: time.Millisecond},
	} {
		m := &repb.ExecutedActionMetadata{ExecutionStartTimestamp: timestamppb.New(epoch0), ExecutionCompletedTimestamp: timestamppb.New(epoch0.Add(c.says))}
		if s := sampleOf(&flight.Outcome{Result: &repb.ActionResult{ExecutionMetadata: m}}, c.took, c.own); s.Duration != c.want {
			t.Errorf("%+v: it counts for %s", c, s.Duration)
		}
	}
}

func TestClose(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		n[1].busy()
		p := n[1].place(n[1].action("a"))
		r := <-n[2].runs
		n[1].initiator.Close()
		if _, err := p.wait(); !errors.Is(err, errClosed) {
			t.Error(err)
		}
		<-r.ctx.Done()
		if _, err := n[1].place(n[1].action("b")).wait(); !errors.Is(err, errClosed) {
			t.Error(err)
		}
	})
}

// TestLocalStaysHome places local work here, although a peer is free.
func TestLocalStaysHome(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free := n[1].busy()
		p := n[1].place(n[1].action("a", func(a *repb.Action) {
			a.Platform = &repb.Platform{Properties: []*repb.Platform_Property{{Name: "no-remote-exec", Value: "1"}}}
		}))
		synctest.Wait()
		if len(n[2].runs) != 0 {
			t.Fatal("it left this machine")
		}
		free()
		(<-n[1].runs).done("x")
		if o, err := p.wait(); err != nil || o.Placement.Class != place.Local {
			t.Errorf("%+v, %v", o, err)
		}
	})
}
