package lease

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// auditor wants everything made again, unless it is told otherwise.
type auditor struct {
	compared chan [2]Made
	believes bool // everything
	suits    func(a *action.Action) bool
	drawn    atomic.Int64 // how often it was asked
}

func newAuditor() *auditor {
	return &auditor{compared: make(chan [2]Made, 2*maxSuspects), suits: func(*action.Action) bool { return true }}
}

func (a *auditor) Draw(peer.ID) bool {
	a.drawn.Add(1)
	return !a.believes
}

func (a *auditor) Suits(x *action.Action) bool { return a.suits(x) }

func (a *auditor) Compare(_ *action.Action, first, second Made) {
	a.compared <- [2]Made{first, second}
}

func TestMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		audit := newAuditor()
		one := m.node(1, func(_ *fakeNode, o *InitiatorOptions) { o.Auditor = audit })
		two := m.node(2)
		m.meet()
		free := one.busy()
		p := one.place(one.action("a"))
		(<-two.runs).done("x")
		p.wait()
		free()
		(<-one.runs).done("y")
		if c := <-audit.compared; c[0].By != two.id || c[1].By != one.id || c[0].Result.OutputFiles[0].Digest.Hash == c[1].Result.OutputFiles[0].Digest.Hash {
			t.Errorf("compared %v", c)
		}
		m.close()
	})
}

// heldContent holds back outputs until it is let go.
type heldContent struct {
	Content
	asked, let chan struct{}
}

func (h heldContent) Outputs(ctx context.Context, from peer.ID, fn digest.Function, r *repb.ActionResult) error {
	h.asked <- struct{}{}
	<-h.let
	return h.Content.Outputs(context.WithoutCancel(ctx), from, fn, r)
}

// TestLateBeforeTheEnd has a result come in from a peer that was given up, while nobody else has brought one: there is
// nothing to compare it with.
func TestLateBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		held := heldContent{asked: make(chan struct{}), let: make(chan struct{})}
		audit := newAuditor()
		one := m.node(1, func(_ *fakeNode, o *InitiatorOptions) {
			held.Content, o.Content, o.Auditor = o.Content, &held, audit
		})
		two := m.node(2)
		m.meet()
		free := one.busy()
		p := one.place(one.action("a"))
		(<-two.runs).done("x")
		<-held.asked
		one.initiator.Gone(two.id)
		close(held.let)
		synctest.Wait()
		if len(audit.compared) != 0 {
			t.Errorf("compared %v", <-audit.compared)
		}
		free()
		(<-one.runs).done("y")
		if o, err := p.wait(); err != nil || len(o.Placement.Attempts) != 2 {
			t.Errorf("%+v, %v", o, err)
		}
		m.close()
	})
}

// spare hands what it runs to the test, apart from its node's other runs.
type spare struct {
	node *fakeNode
	runs chan *fakeRun
}

func (s spare) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	return (&fakeNode{store: s.node.store, runs: s.runs}).Execute(ctx, a, o)
}

// inAudit runs a test with two nodes; the first audits what it finds at the second, and gives what it makes again to spare.
func inAudit(t *testing.T, test func(t *testing.T, one, two *fakeNode, spare chan *fakeRun, audit *auditor), bend ...func(*fakeNode, *InitiatorOptions)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		audit, again := newAuditor(), make(chan *fakeRun, 2*maxSuspects)
		one := m.node(1, append(bend, func(f *fakeNode, o *InitiatorOptions) { o.Auditor, o.Spare = audit, spare{f, again} })...)
		two := m.node(2)
		m.meet()
		test(t, one, two, again, audit)
		m.close()
	})
}

// finds tells n of a result that by made of an action, with one output file.
func (n *fakeNode) finds(a *action.Action, by *fakeNode, content string) {
	r := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: digest.SHA256.Of([]byte(content)).Proto()}}}
	n.initiator.Found(a.Digest, a.WholeRoot, Made{By: by.id, Result: r})
}

// TestFoundMadeAgain: a result that was found at a peer is made again here, of inputs that come from that peer.
func TestFoundMadeAgain(t *testing.T) {
	inAudit(t, func(t *testing.T, one, two *fakeNode, spare chan *fakeRun, audit *auditor) {
		a := two.action("a")
		one.finds(a, two, "lie")
		r := <-spare
		if missing, err := one.store.Missing(t.Context(), []digest.Digest{a.Digest, a.CommandDigest, a.InputRoot}); err != nil || len(missing) != 0 {
			t.Errorf("missing %v, %v", missing, err)
		}
		r.done("truth")
		c := <-audit.compared
		if c[0].By != two.id || c[1].By != one.id || c[1].Result.OutputFiles[0].Digest.Hash != digest.SHA256.Of([]byte("truth")).Hex() {
			t.Errorf("compared %v", c)
		}
		if len(one.runs)+len(two.runs) != 0 {
			t.Error("it ran elsewhere too")
		}
	})
}

// TestFoundBelieved lists what is not made again.
func TestFoundBelieved(t *testing.T) {
	for name, bend := range map[string]func(one, two *fakeNode, audit *auditor) *action.Action{
		"not drawn": func(_, two *fakeNode, audit *auditor) *action.Action {
			audit.believes = true
			return two.action("a")
		},
		"unsuited": func(_, two *fakeNode, audit *auditor) *action.Action {
			audit.suits = func(*action.Action) bool { return false }
			return two.action("a")
		},
		"not to be cached": func(_, two *fakeNode, _ *auditor) *action.Action {
			return two.action("a", func(a *repb.Action) { a.DoNotCache = true })
		},
		"an action that nobody has": func(_, two *fakeNode, _ *auditor) *action.Action {
			a := two.action("a")
			delete(two.store.data, a.Digest)
			return a
		},
		"inputs that nobody has": func(_, two *fakeNode, _ *auditor) *action.Action {
			a := two.action("a")
			delete(two.store.data, a.InputRoot)
			return a
		},
		"its own": func(one, two *fakeNode, _ *auditor) *action.Action {
			a := one.action("a")
			two.id = one.id
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			inAudit(t, func(t *testing.T, one, two *fakeNode, spare chan *fakeRun, audit *auditor) {
				id := two.id
				one.finds(bend(one, two, audit), two, "x")
				two.id = id
				time.Sleep(auditFetch)
				if len(spare) != 0 || len(audit.compared) != 0 {
					t.Error("it was made again")
				}
			})
		})
	}
}

// TestSuspectsAreBounded: while nothing can be made again only so many results wait for it.
func TestSuspectsAreBounded(t *testing.T) {
	inAudit(t, func(t *testing.T, one, two *fakeNode, spare chan *fakeRun, audit *auditor) {
		p := one.place(one.action("work"))
		run := <-one.runs
		for i := range 3 * maxSuspects {
			one.finds(two.action(fmt.Sprint(i)), two, "x")
			if i == 0 {
				synctest.Wait() // it is taken out of the queue, and waits
			}
		}
		time.Sleep(time.Hour)
		if len(spare) != 0 {
			t.Error("made again while there is work")
		}
		run.done("x")
		p.wait()
		for range maxSuspects + 1 {
			(<-spare).done("x")
			<-audit.compared
		}
		time.Sleep(time.Hour)
		if len(spare) != 0 || audit.drawn.Load() != 3*maxSuspects {
			t.Errorf("%d are made again, %d were drawn", len(spare), audit.drawn.Load())
		}
	})
}

// TestAuditYields: what is made again leaves its slot to work at once, and begins anew when that is done; not for ever.
func TestAuditYields(t *testing.T) {
	inAudit(t, func(t *testing.T, one, two *fakeNode, spare chan *fakeRun, audit *auditor) {
		two.busy()
		one.sees(two)
		one.finds(two.action("suspect"), two, "x")
		for try := range auditTries {
			again := <-spare
			began := time.Now()
			first := one.place(one.action(fmt.Sprint("first", try)))
			(<-one.runs).done("x")
			first.wait()
			if again.ctx.Err() != nil {
				t.Fatal("it left a slot that nobody wants")
			}
			second, third := one.place(one.action(fmt.Sprint("second", try))), one.place(one.action(fmt.Sprint("third", try)))
			<-again.ctx.Done()
			for range 2 {
				(<-one.runs).done("x")
			}
			if waited := time.Since(began); waited > 0 {
				t.Errorf("work waited for %s", waited)
			}
			second.wait()
			third.wait()
		}
		time.Sleep(time.Hour)
		if len(spare) != 0 || len(audit.compared) != 0 {
			t.Error("it begins again and again")
		}
	})
}

// stuckContent never has the inputs that it is asked for.
type stuckContent struct {
	Content
	asked chan struct{}
}

func (c stuckContent) Inputs(ctx context.Context, _ peer.ID, _ *action.Action) (int64, error) {
	c.asked <- struct{}{}
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// TestCloseDuringAudit ends at once what is made again, however far that is, and all that waits for it.
func TestCloseDuringAudit(t *testing.T) {
	var asked chan struct{} // of the time bubble that uses it
	for name, c := range map[string]struct {
		reach func(spare chan *fakeRun)
		bend  []func(*fakeNode, *InitiatorOptions)
	}{
		"it waits until nothing else is done": {reach: func(chan *fakeRun) { time.Sleep(auditQuiet / 2) }},
		"its inputs come": {func(chan *fakeRun) { <-asked }, []func(*fakeNode, *InitiatorOptions){func(_ *fakeNode, o *InitiatorOptions) {
			asked = make(chan struct{}, 1)
			o.Content = stuckContent{o.Content, asked}
		}}},
		"it runs": {reach: func(spare chan *fakeRun) { <-spare }},
	} {
		t.Run(name, func(t *testing.T) {
			inAudit(t, func(t *testing.T, one, two *fakeNode, spare chan *fakeRun, audit *auditor) {
				for _, name := range []string{"a", "b"} {
					one.finds(two.action(name), two, "x")
				}
				c.reach(spare)
				began := time.Now()
				one.initiator.Close()
				if took := time.Since(began); took > 0 {
					t.Errorf("it ended after %s", took)
				}
				one.finds(two.action("c"), two, "x")
				time.Sleep(time.Hour)
				if len(spare) != 0 || len(audit.compared) != 0 {
					t.Errorf("after the end %d are made again, %d were compared", len(spare), len(audit.compared))
				}
			}, c.bend...)
		})
	}
}
