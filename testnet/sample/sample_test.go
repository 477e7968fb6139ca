package sample

import (
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/testnet/wrong"
)

// endpoint is a client of a server that may get something wrong.
func endpoint(t *testing.T, defect wrong.Defect) *Client {
	t.Helper()
	at, stop, err := wrong.Start(defect)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	client, err := Dial(strings.TrimPrefix(at, "grpc://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// A sample is not known, then built, then known, and its bytes are right.
func TestBuild(t *testing.T) {
	client, one := endpoint(t, wrong.None), Sample{Name: "one", Size: 300_001}
	if b, err := client.Find(t.Context(), one); status.Code(err) != codes.NotFound {
		t.Fatalf("before it was built: %v, %v", b, err)
	}
	for _, known := range []bool{false, true} {
		if b, err := client.Build(t.Context(), one); err != nil || !b.Right || b.Known != known {
			t.Errorf("built: %+v, %v; want it known: %v", b, err, known)
		}
	}
	if b, err := client.Find(t.Context(), one); err != nil || !b.Right || !b.Known {
		t.Errorf("after it was built: %+v, %v", b, err)
	}
}

// Who wants to know where a sample runs is not told when it has run.
func TestBegin(t *testing.T) {
	client, slow := endpoint(t, wrong.None), Sample{Name: "slow", Size: 6, Takes: time.Millisecond}
	if worker, err := client.Begin(t.Context(), slow); err == nil { // this endpoint tells of no worker while it runs
		t.Errorf("begun on %q", worker)
	}
	if b, err := client.Build(t.Context(), slow); err != nil || !b.Right {
		t.Errorf("built: %+v, %v", b, err)
	}
}

// Bytes that are not the sample's are seen to be others.
func TestWrongBytes(t *testing.T) {
	client, one := endpoint(t, wrong.None), Sample{Name: "one", Size: 6}
	built, err := client.Build(t.Context(), one)
	if err != nil || !built.Right {
		t.Fatalf("built: %+v, %v", built, err)
	}
	result, err := client.Result(t.Context(), one.Digest().Proto())
	if err != nil {
		t.Fatal(err)
	}
	other := Sample{Name: "two", Size: 6}
	if b, err := client.look(t.Context(), other, result, false); err != nil || b.Right {
		t.Errorf("the bytes of one sample pass for another's: %+v, %v", b, err)
	}
}

// A sample is known by its command.
func TestOf(t *testing.T) {
	for _, want := range []Sample{{Name: "one", Size: 6}, {Name: "two", Size: 7, Takes: time.Second}, {Name: "three", Size: 8, Takes: time.Second, Eats: 9}} {
		_, rest := want.encode()
		command := &repb.Command{}
		if err := proto.Unmarshal(rest[len(rest)-1], command); err != nil {
			t.Fatal(err)
		}
		if s, path, err := Of(command.Arguments); err != nil || s != want || path != command.OutputPaths[0] {
			t.Errorf("%q is taken for %+v at %q, %v", command.Arguments, s, path, err)
		}
		if s, _, err := Of(command.Arguments[1:]); err == nil {
			t.Errorf("what is no sample is taken for %+v", s)
		}
	}
}

// Equal samples are equal actions, unlike ones are not, and a content has its size.
func TestSample(t *testing.T) {
	one := Sample{Name: "one", Size: 6}
	if got := string(one.Content()); got != "one\non" {
		t.Errorf("content %q", got)
	}
	if again := (Sample{Name: "one", Size: 6}); again.Digest() != one.Digest() {
		t.Error("equal samples are unlike actions")
	}
	for _, other := range []Sample{{Name: "two", Size: 6}, {Name: "one", Size: 7}, {Name: "one", Size: 6, Takes: time.Second}, {Name: "one", Size: 6, Eats: 1}, {Name: "one", Size: 6, Asks: "Pool=big"}} {
		if other.Digest() == one.Digest() {
			t.Errorf("%+v is the same action as %+v", other, one)
		}
	}
}
