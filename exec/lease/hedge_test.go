package lease

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// learns has a node know that its actions take 2 s.
func (n *fakeNode) learns() {
	for i := range 6 {
		p := n.place(n.action(string(rune('a' + i))))
		time.Sleep(2 * time.Second)
		(<-n.runs).done("x")
		p.wait()
	}
}

// TestHedge copies a slow action; the copy wins and the slow one is killed.
func TestHedge(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		n[1].learns()
		free := n[1].busy()
		p := n[1].place(n[1].action("slow"))
		slow := <-n[2].runs
		free()
		began := time.Now()
		fast := <-n[1].runs
		if after := time.Since(began); after < 5*time.Second || after > 8*time.Second {
			t.Errorf("copied after %s, the median is 2 s", after)
		}
		fast.done("x")
		o, err := p.wait()
		if err != nil || len(o.Placement.Attempts) != 2 || !o.Placement.Attempts[1].Hedge || !o.Placement.Attempts[1].Won {
			t.Errorf("%+v, %v", o.Placement, err)
		}
		<-slow.ctx.Done()
	})
}

// notes is Receipts that keeps what it is given.
type notes struct {
	accepted, noted []peer.ID
	refuses         error // late results
}

func (*notes) Sign(context.Context, *action.Action, *repb.ActionResult) ([]byte, error) {
	return []byte("signed"), nil
}

func (x *notes) Accept(_ context.Context, from peer.ID, _ *action.Action, _ *repb.ActionResult, raw []byte) error {
	x.accepted = append(x.accepted, from)
	return nil
}

func (x *notes) Note(ctx context.Context, from peer.ID, _ *action.Action, _ *repb.ActionResult, raw []byte) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	x.noted = append(x.noted, from)
	return x.refuses
}

// onTheWay is Content whose outputs come never, or, when ctx has ended, by surprise.
type onTheWay struct {
	Content
	late bool
}

func (c onTheWay) Outputs(ctx context.Context, from peer.ID, fn digest.Function, r *repb.ActionResult) error {
	<-ctx.Done()
	if !c.late {
		return context.Cause(ctx)
	}
	return c.Content.Outputs(context.WithoutCancel(ctx), from, fn, r)
}

// unstoppable runs what nobody wants any more to its end.
type unstoppable struct{ flight.Executor }

func (u unstoppable) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	return u.Executor.Execute(context.WithoutCancel(ctx), a, o)
}

// TestBothCopiesComplete: when the slow one of two copies has brought its result before it is cancelled, both results are
// compared, whether or not its outputs are here; the one that won is the client's.
func TestBothCopiesComplete(t *testing.T) {
	for name, c := range map[string]struct {
		outputsLate     bool
		refuses         error
		accepted, noted int
		compared        int
	}{
		"its outputs are on their way":  {noted: 1, compared: 1},
		"its outputs are here":          {outputsLate: true, accepted: 1, compared: 1},
		"nobody answers for its result": {refuses: errors.New("not signed"), noted: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t)
				audit, receipts := newAuditor(), &notes{refuses: c.refuses}
				audit.believes = true
				one := m.node(1, func(_ *fakeNode, o *InitiatorOptions) {
					o.Content, o.Auditor, o.Receipts = onTheWay{o.Content, c.outputsLate}, audit, receipts
				})
				two := m.node(2)
				m.meet()
				one.learns()
				free := one.busy()
				p := one.place(one.action("slow"))
				(<-two.runs).done("of the slow one")
				free()
				(<-one.runs).done("of the fast one")
				o, err := p.wait()
				if err != nil || o.Result.OutputFiles[0].Digest.Hash != digest.SHA256.Of([]byte("of the fast one")).Hex() {
					t.Errorf("%v, %v", o, err)
				}
				synctest.Wait()
				if len(receipts.accepted) != c.accepted || len(receipts.noted) != c.noted || len(audit.compared) != c.compared {
					t.Errorf("%d accepted, %d noted, %d compared", len(receipts.accepted), len(receipts.noted), len(audit.compared))
				}
				if len(audit.compared) > 0 {
					wantCompared(t, <-audit.compared, Made{By: one.id, Result: o.Result}, two.id, "of the slow one")
				}
				if u := two.executor.Usage(); u.FreeCores != u.Cores || two.store.pinned() != 0 {
					t.Errorf("the slow one's room is not free: %+v, %d pins", u, two.store.pinned())
				}
				m.close()
			})
		})
	}
}

// wantCompared checks what the auditor was told: the result that counted, and the late one.
func wantCompared(t *testing.T, got [2]Made, counted Made, late peer.ID, content string) {
	t.Helper()
	if got[0] != counted || got[1].By != late || got[1].Result.OutputFiles[0].Digest.Hash != digest.SHA256.Of([]byte(content)).Hex() {
		t.Errorf("compared %v", got)
	}
}

// TestOwnCopyCompletesLate: the same when the slow copy is this machine's own.
func TestOwnCopyCompletesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		audit := newAuditor()
		audit.believes = true
		one := m.node(1, func(f *fakeNode, o *InitiatorOptions) { o.Auditor, o.Run = audit, unstoppable{f} })
		two := m.node(2)
		m.meet()
		one.learns()
		p := one.place(one.action("slow"))
		slow := <-one.runs
		(<-two.runs).done("of the fast one")
		synctest.Wait()
		slow.done("of the slow one")
		o, err := p.wait()
		if err != nil || o.Result.OutputFiles[0].Digest.Hash != digest.SHA256.Of([]byte("of the fast one")).Hex() {
			t.Errorf("%v, %v", o, err)
		}
		wantCompared(t, <-audit.compared, Made{By: two.id, Result: o.Result}, one.id, "of the slow one")
		m.close()
	})
}
