package lease

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

type runStream = grpc.BidiStreamingServer[leasev1.RunRequest, leasev1.RunResponse]

// rogue is an executor that grants everything and then does as a test wants.
type rogue struct {
	leasev1.UnimplementedLeaseServer
	granted atomic.Int64
	lease   []byte                                       // of every grant; nil: a good one
	run     func(stream runStream) error                 // after the start
	wait    func(push func(*leasev1.WaitResponse) error) // when tickets come
}

func (r *rogue) Reserve(context.Context, *leasev1.ReserveRequest) (*leasev1.ReserveResponse, error) {
	r.granted.Add(1)
	id := NewID()
	answer := answerProto(id, false, nil)
	if r.lease != nil {
		answer.GetGranted().Lease = r.lease
	}
	return answer, nil
}

func (r *rogue) Run(stream runStream) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return r.run(stream)
}

func (r *rogue) Cancel(context.Context, *leasev1.CancelRequest) (*leasev1.CancelResponse, error) {
	return &leasev1.CancelResponse{}, nil
}

func (r *rogue) Wait(stream grpc.BidiStreamingServer[leasev1.WaitRequest, leasev1.WaitResponse]) error {
	if r.wait != nil {
		r.wait(stream.Send)
	}
	<-stream.Context().Done()
	return nil
}

// silence says nothing, for ever.
func silence(stream runStream) error {
	<-stream.Context().Done()
	return nil
}

// beating says for ever that it is at a stage.
func beating(stage leasev1.Stage) func(runStream) error {
	return func(stream runStream) error {
		for {
			err := stream.Send(&leasev1.RunResponse{Message: &leasev1.RunResponse_Progress{Progress: &leasev1.Progress{Stage: stage, FreeCores: math.Inf(1)}}})
			if err != nil {
				return err
			}
			select {
			case <-time.After(BeatEvery):
			case <-stream.Context().Done():
				return nil
			}
		}
	}
}

// answering gives a result at once.
func answering(r *leasev1.Result) func(runStream) error {
	return func(stream runStream) error {
		if err := stream.Send(&leasev1.RunResponse{Message: &leasev1.RunResponse_Result{Result: r}}); err != nil {
			return err
		}
		return silence(stream)
	}
}

// late is silent until its lease is long lost, and then has a result of its own.
func late(stream runStream) error {
	time.Sleep(TTL + 3*time.Second)
	made, _ := proto.Marshal(&repb.ActionResult{ExitCode: 1})
	return stream.Send(&leasev1.RunResponse{Message: &leasev1.RunResponse_Result{Result: &leasev1.Result{ActionResult: made}}})
}

// encoded is a result with an output that nobody has.
func encoded(t *testing.T) []byte {
	t.Helper()
	d := digest.SHA256.Of([]byte("nobody has this"))
	data, err := proto.Marshal(&repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: d.Proto()}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestRogueExecutors: whatever the member does that an action was given to, the action is done elsewhere in bounded time,
// with its right result, and the trace says what was wrong.
func TestRogueExecutors(t *testing.T) {
	killed, err := proto.Marshal(&repb.ActionResult{ExitCode: 137})
	if err != nil {
		t.Fatal(err)
	}
	wrong := &leasev1.Blob{Digest: DigestProto(digest.SHA256.Of([]byte("x"))), Content: []byte("not x")}
	for _, c := range []struct {
		name    string
		rogue   *rogue
		timeout time.Duration // of the action
		within  time.Duration
	}{
		{"accepts and never runs", &rogue{run: silence}, 0, 15 * time.Second},
		{"fetches for ever", &rogue{run: beating(leasev1.Stage_STAGE_FETCHING)}, 0, fetchStall + 5*time.Second},
		{"runs for ever", &rogue{run: beating(leasev1.Stage_STAGE_RUNNING)}, 10 * time.Second, runAllowance + 15*time.Second},
		{"answers for an old attempt", &rogue{run: late}, 0, 20 * time.Second},
		{"answers with nothing", &rogue{run: answering(&leasev1.Result{})}, 0, 5 * time.Second},
		{"answers with noise", &rogue{run: answering(&leasev1.Result{ActionResult: []byte("noise"), Status: []byte("noise")})}, 0, 5 * time.Second},
		{"answers with outputs nobody has", &rogue{run: answering(&leasev1.Result{ActionResult: encoded(t)})}, 0, 5 * time.Second},
		{"answers with a blob that is another", &rogue{run: answering(&leasev1.Result{ActionResult: encoded(t), Blobs: []*leasev1.Blob{wrong}})}, 0, 5 * time.Second},
		{"misses inputs that are there", &rogue{run: answering(&leasev1.Result{Failure: leasev1.Failure_FAILURE_MISSING})}, 0, 5 * time.Second},
		{"has never enough memory", &rogue{run: answering(&leasev1.Result{
			Failure: leasev1.Failure_FAILURE_MEMORY, MemoryBytes: math.MaxInt64, ActionResult: killed,
		})}, 0, 5 * time.Second},
		{"hangs up", &rogue{run: func(runStream) error { return status.Error(codes.Unavailable, "bye") }}, 0, 15 * time.Second},
		{"knows nothing of its lease", &rogue{run: func(runStream) error { return refused(ErrStale) }}, 0, 5 * time.Second},
		{"grants leases without a name", &rogue{run: silence, lease: []byte{}}, 0, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t)
				one := m.node(1)
				m.node(2, func(f *fakeNode, _ *InitiatorOptions) { f.service = c.rogue })
				m.meet()
				free := one.busy()
				began := time.Now()
				p := one.place(one.action("a", func(a *repb.Action) {
					if c.timeout > 0 {
						a.Timeout = durationpb.New(c.timeout)
					}
				}))
				synctest.Wait()
				if c.rogue.granted.Load() == 0 {
					t.Fatal("it was not asked")
				}
				free()
				r := <-one.runs
				if took := time.Since(began); took > c.within {
					t.Errorf("it cost %s", took)
				}
				time.Sleep(5 * time.Second) // for what comes late
				r.done("right")
				o, err := p.wait()
				if err != nil || len(o.Result.OutputFiles) != 1 || o.Result.OutputFiles[0].Digest.Hash != digest.SHA256.Of([]byte("right")).Hex() {
					t.Fatalf("%v, %v", o, err)
				}
				if first := o.Placement.Attempts[0]; len(first.Events) == 0 || first.Won {
					t.Errorf("the trace says nothing of it: %+v", first)
				}
				m.close()
			})
		})
	}
}

// TestAbsurdClaims: a member says that it has endless room and speed, takes whatever it is given and runs nothing. All work
// is done by the others in bounded time.
func TestAbsurdClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		one, two := m.node(1), m.node(2)
		two.instant = true
		liar := &rogue{run: silence, wait: func(push func(*leasev1.WaitResponse) error) {
			for i := range uint64(1000) { // offers nobody has asked for
				_ = push(&leasev1.WaitResponse{Message: &leasev1.WaitResponse_Offer{Offer: &leasev1.Offer{Offer: i, Invocation: "x", Cores: math.Inf(1), FreeMemoryBytes: -1}}})
				_ = push(&leasev1.WaitResponse{Message: &leasev1.WaitResponse_Taken{Taken: &leasev1.Taken{Offer: i}}})
			}
		}}
		three := m.node(3, func(f *fakeNode, _ *InitiatorOptions) { f.service = liar })
		m.meet()
		free := one.busy()
		claim := func() {
			absurd := machine
			absurd.Cores, absurd.MemoryBytes = math.Inf(1), math.MaxInt64
			one.initiator.Peer(place.Peer{ID: three.id, Name: "liar", Offer: absurd, FreeCores: math.NaN(), FreeBytes: math.MaxInt64, Speed: math.Inf(1), Bandwidth: 1e300, At: time.Now()})
			absurd.Cores = 1e300
			one.initiator.Peer(place.Peer{ID: three.id, Name: "liar", Offer: absurd, FreeCores: 1e300, FreeBytes: math.MaxInt64, Speed: math.Inf(1), Bandwidth: 1e300, At: time.Now()})
		}
		claim()
		began := time.Now()
		var all []*placed
		for i := range 60 {
			all = append(all, one.place(one.action(fmt.Sprint("a", i))))
		}
		synctest.Wait()
		if liar.granted.Load() == 0 {
			t.Fatal("it was not asked")
		}
		for _, p := range all {
			if o, err := p.wait(); err != nil || len(o.Result.OutputFiles) != 1 {
				t.Fatalf("%v, %v", o, err)
			}
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it cost %s", took)
		}
		free()
		m.close()
	})
}

// TestForgedClaims: nobody but its initiator can end, renew or take a lease, and that one only with the present attempt.
func TestForgedClaims(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		free1, free3 := n[1].busy(), n[3].busy()
		p := n[1].place(n[1].action("a"))
		r := <-n[2].runs
		var good Claim
		n[2].executor.with(func(b *Book, _ time.Time) {
			for _, l := range b.leases {
				good = l.Claim
			}
		})
		for name, forge := range map[string]func(from *byte, c *Claim){
			"of another member":  func(from *byte, c *Claim) { *from = 3 },
			"of an old attempt":  func(_ *byte, c *Claim) { c.Attempt-- },
			"of an old epoch":    func(_ *byte, c *Claim) { c.Epoch-- },
			"of no lease at all": func(_ *byte, c *Claim) { c.Lease[0]++ },
		} {
			from, c := byte(1), good
			forge(&from, &c)
			conn, err := dialer{m, peer.ID{from}}.Control(t.Context(), n[2].id)
			if err != nil {
				t.Fatal(err)
			}
			client := leasev1.NewLeaseClient(conn)
			if _, err := client.Cancel(t.Context(), &leasev1.CancelRequest{Claim: claimProto(c)}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			stream, err := client.Run(t.Context())
			if err == nil {
				err = stream.Send(&leasev1.RunRequest{Message: &leasev1.RunRequest_Start{Start: &leasev1.Start{Claim: claimProto(c), Action: DigestProto(r.action.Digest)}}})
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("%s: %v", name, err)
			}
			if r.ctx.Err() != nil {
				t.Fatalf("%s: it ended the run", name)
			}
		}
		r.done("x")
		if _, err := p.wait(); err != nil {
			t.Error(err)
		}
		free1()
		free3()
	})
}

// TestInitiatorDies: an initiator whose process ends without a word leaves nothing running after 10 s.
func TestInitiatorDies(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *fakeMesh, n []*fakeNode) {
		n[1].busy()
		n[1].place(n[1].action("a"))
		r := <-n[2].runs
		time.Sleep(7 * time.Second) // some beats
		m.mu.Lock()
		n[2].broken = true // from now on nothing of it comes through
		conn := m.conns[[2]peer.ID{n[1].id, n[2].id}]
		m.mu.Unlock()
		died := time.Now()
		conn.Close()
		<-r.ctx.Done()
		synctest.Wait()
		if took := time.Since(died); took != TTL {
			t.Errorf("killed after %s", took)
		}
		if u := n[2].executor.Usage(); u.FreeCores != u.Cores || u.Running != 0 || n[2].store.pinned() != 0 {
			t.Errorf("left behind: %+v, %d pins", u, n[2].store.pinned())
		}
	})
}
