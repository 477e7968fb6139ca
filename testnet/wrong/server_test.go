package wrong

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestStopEndsEverything: after stop nothing listens and no goroutine of the server is left, which
// stop itself waits for; a second server starts beside the first.
func TestStopEndsEverything(t *testing.T) {
	first, stopFirst, err := Start(None)
	if err != nil {
		t.Fatal(err)
	}
	_, stopSecond, err := Start(EmptyBlobMissing)
	if err != nil {
		t.Fatal(err)
	}
	stopSecond()
	address := strings.TrimPrefix(first, "grpc://")
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		t.Fatalf("the first server does not answer: %v", err)
	}
	_ = c.Close() // only its success mattered
	stopFirst()
	if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		_ = c.Close() // the failure is that it opened
		t.Error("the first server answers after stop")
	}
}

// TestParse holds the resource names the server takes against the forms of the protocol.
func TestParse(t *testing.T) {
	const hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	s := newServer(None, t.TempDir())
	for _, c := range []struct {
		name         string
		write, valid bool
		compressed   bool
	}{
		{"blobs/" + hash + "/3", false, true, false},
		{"a/b/blobs/" + hash + "/3", false, true, false},
		{"blobs/blake3/" + hash + "/3", false, true, false},
		{"compressed-blobs/zstd/" + hash + "/3", false, true, true},
		{"compressed-blobs/identity/" + hash + "/3", false, false, false},
		{"blobs/" + hash + "/3/x", false, false, false},
		{"uploads/u/blobs/" + hash + "/3", true, true, false},
		{"i/uploads/u/compressed-blobs/zstd/blake3/" + hash + "/3/x/y", true, true, true},
		{"blobs/" + hash + "/3", true, false, false},
		{"uploads/u/blobs/" + hash, true, false, false},
		{"", false, false, false},
		{"", true, false, false},
	} {
		r, err := s.parse(c.name, c.write)
		if (err == nil) != c.valid || c.valid && (r.compressed != c.compressed || r.digest.Hex() != hash) {
			t.Errorf("parse %q, write %v: %+v, %v", c.name, c.write, r, err)
		}
	}
}

// TestWithin: which output paths stay inside the input root.
func TestWithin(t *testing.T) {
	for _, c := range []struct {
		dir, name, clean string
		inside           bool
	}{
		{"", "a", "a", true}, {"a/b", "../c", "a/c", true}, {"a", "..", "", true}, {"a", "../..", "..", false},
		{"", "/a", "", false}, {"a", "../../b", "../b", false}, {"", "..a", "..a", true},
	} {
		if clean, inside := within(c.dir, c.name); clean != c.clean || inside != c.inside {
			t.Errorf("within %q %q: %q, %v, want %q, %v", c.dir, c.name, clean, inside, c.clean, c.inside)
		}
	}
}
