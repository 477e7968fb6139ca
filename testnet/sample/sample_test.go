package sample

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// Bytes that are not the sample's are seen to be others.
func TestWrongBytes(t *testing.T) {
	client, one := endpoint(t, wrong.None), Sample{Name: "one", Size: 6}
	built, err := client.Build(t.Context(), one)
	if err != nil || !built.Right {
		t.Fatalf("built: %+v, %v", built, err)
	}
	result, err := client.result(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	other := Sample{Name: "two", Size: 6}
	if b, err := client.look(t.Context(), other, result, false); err != nil || b.Right {
		t.Errorf("the bytes of one sample pass for another's: %+v, %v", b, err)
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
	for _, other := range []Sample{{Name: "two", Size: 6}, {Name: "one", Size: 7}} {
		if other.Digest() == one.Digest() {
			t.Errorf("%+v is the same action as %+v", other, one)
		}
	}
}
