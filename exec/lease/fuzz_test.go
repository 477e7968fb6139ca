package lease

import (
	"context"
	"errors"
	"math"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// fuzzed is an Executor that ana calls.
func fuzzed(f *testing.F) *Executor {
	e := NewExecutor(ExecutorOptions{
		Self: self, Book: NewBook(4, 8<<30, Options{Self: self, NewID: NewID}), Caller: func(context.Context) (peer.ID, error) { return ana, nil },
	})
	f.Cleanup(e.Close)
	return e
}

// add gives a message to a fuzz target as its bytes.
func add(f *testing.F, m proto.Message) {
	f.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
}

// idle fails the test unless all room is free.
func idle(t *testing.T, e *Executor) {
	t.Helper()
	if u := e.Usage(); u != (Usage{Cores: 4, FreeCores: 4, Bytes: 8 << 30, FreeBytes: 8 << 30}) {
		t.Fatalf("in use: %+v", u)
	}
}

// absurd are requests for room, by a peer.
func absurd() []*leasev1.ReserveRequest {
	d := DigestProto(act("a"))
	return []*leasev1.ReserveRequest{
		{Action: d, Cores: 1, MemoryBytes: 1 << 30, Invocation: "i", Attempt: 1, Epoch: 5},
		{Action: d, Cores: math.NaN(), Attempt: 1}, {Action: d, Cores: math.Inf(1), Attempt: 1}, {Action: d, Cores: -1, Attempt: 1},
		{Action: d, Cores: 1, MemoryBytes: -1, Attempt: 1}, {Action: d, Cores: 1, MemoryBytes: math.MaxInt64, Attempt: 1},
		{Action: d, Cores: 1, Attempt: math.MinInt32}, {Action: &leasev1.Digest{Function: 99, Hash: d.Hash}, Cores: 1, Attempt: 1},
		{Action: &leasev1.Digest{Function: 1, Hash: d.Hash[1:]}, Cores: 1, Attempt: 1}, {},
	}
}

// FuzzReserve: whatever a peer asks for, it is malformed, refused, or granted and given back whole.
func FuzzReserve(f *testing.F) {
	for _, in := range absurd() {
		add(f, in)
	}
	e := fuzzed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &leasev1.ReserveRequest{}
		if proto.Unmarshal(data, in) != nil {
			return
		}
		answer, err := e.Reserve(t.Context(), in)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Fatal(err)
			}
			return
		}
		id, refusal, err := answerFrom(answer)
		if err != nil {
			t.Fatal(err)
		}
		if refusal == nil {
			claim := claimProto(Claim{Lease: id, Attempt: in.Attempt, Epoch: in.Epoch})
			if _, err := e.Cancel(t.Context(), &leasev1.CancelRequest{Claim: claim}); err != nil {
				t.Fatal(err)
			}
		}
		idle(t, e)
	})
}

// FuzzWait: whatever a peer that waits says, nothing of it is left when it hangs up.
func FuzzWait(f *testing.F) {
	add(f, &leasev1.WaitRequest{})
	add(f, &leasev1.WaitRequest{Message: &leasev1.WaitRequest_Pass{Pass: &leasev1.Pass{Offer: 1}}})
	for _, in := range absurd() {
		add(f, &leasev1.WaitRequest{Message: &leasev1.WaitRequest_Ticket{Ticket: &leasev1.Ticket{Invocation: in.Invocation, Cores: in.Cores, MemoryBytes: in.MemoryBytes}}})
		add(f, &leasev1.WaitRequest{Message: &leasev1.WaitRequest_Take{Take: &leasev1.Take{Offer: 1, Reserve: in}}})
	}
	e := fuzzed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &leasev1.WaitRequest{}
		if proto.Unmarshal(data, in) != nil {
			return
		}
		w := &waiter{push: func(*Offered) {}}
		e.enter(ana, w)
		if err := e.hear(ana, in, func(*leasev1.WaitResponse) {}); err != nil && !errors.Is(err, errMalformed) {
			t.Fatal(err)
		}
		e.leave(ana, w)
		e.Expel(ana)
		idle(t, e)
	})
}

// FuzzStart: nobody begins a run without a lease of his own, whatever he claims.
func FuzzStart(f *testing.F) {
	id := NewID()
	add(f, &leasev1.Start{})
	add(f, &leasev1.Start{Action: DigestProto(act("a")), Claim: &leasev1.Claim{Lease: id[:], Attempt: 1, Epoch: 5}})
	add(f, &leasev1.Start{Action: DigestProto(act("a")), Claim: &leasev1.Claim{Lease: id[1:], Attempt: -1}})
	e := fuzzed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &leasev1.Start{}
		if proto.Unmarshal(data, in) != nil {
			return
		}
		c, err := claimFrom(in.GetClaim(), ana)
		if err == nil {
			_, err = e.begin(c, in)
		}
		if !errors.Is(err, ErrStale) && !errors.Is(err, errMalformed) {
			t.Fatalf("begun: %v", err)
		}
		idle(t, e)
	})
}

// FuzzResult: whatever a peer says that an action made, there is an outcome, or an error that has it tried elsewhere.
func FuzzResult(f *testing.F) {
	made, err := proto.Marshal(&repb.ActionResult{ExitCode: 1, OutputFiles: []*repb.OutputFile{{Path: "out", Digest: digest.SHA256.Empty().Proto()}}})
	if err != nil {
		f.Fatal(err)
	}
	for failure := range leasev1.Failure_name {
		add(f, &leasev1.Result{Failure: leasev1.Failure(failure), ActionResult: made, MemoryBytes: math.MinInt64})
		add(f, &leasev1.Result{Failure: leasev1.Failure(failure), ActionResult: []byte("noise"), Status: []byte("noise")})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &leasev1.Result{}
		if proto.Unmarshal(data, in) != nil {
			return
		}
		outcome, err := outcomeFrom(in)
		if outcome == nil {
			var failed *failedError
			if !errors.As(err, &failed) {
				t.Fatalf("no outcome, and %v", err)
			}
			return
		}
		if outcome.Result == nil {
			t.Fatal("an outcome without a result")
		}
		smallOutputs(digest.SHA256, outcome.Result)
		if s := sampleOf(outcome, 1, false); math.IsNaN(s.Cores) || s.Duration <= 0 {
			t.Fatalf("%+v", s)
		}
	})
}
