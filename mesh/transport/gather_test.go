package transport

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// What is written between hold and release goes out at once, in order, and what a connection does not take is told.
func TestGathered(t *testing.T) {
	conn := &narrow{left: 8}
	g := gather(conn)
	write := func(p string) {
		t.Helper()
		if n, err := g.Write([]byte(p)); n != len(p) || err != nil {
			t.Errorf("write %s: %d, %v", p, n, err)
		}
	}
	write("a")
	g.hold()
	write("bc")
	write("def")
	if conn.took.String() != "a" {
		t.Errorf("while records are held, %q is written", conn.took.String())
	}
	if err := g.release(); err != nil || conn.took.String() != "abcdef" || conn.widest != len("bcdef") {
		t.Errorf("written %q, %d at once, %v", conn.took.String(), conn.widest, err)
	}
	if err := g.release(); err != nil || conn.took.String() != "abcdef" {
		t.Errorf("nothing was held, and %q is written, %v", conn.took.String(), err)
	}
	g.hold()
	write("ghi")
	if err := g.release(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a full connection: %v", err)
	}
}

// What has come is read at once, and given in the pieces asked for.
func TestReadAhead(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	g := gather(here)
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		defer there.Close()
		if _, err := there.Write([]byte("one two")); err != nil {
			t.Error(err)
		}
	})
	got := make([]byte, 3)
	for _, want := range []string{"one", " tw"} {
		if _, err := io.ReadFull(g, got); err != nil || string(got) != want {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
	if n, err := io.ReadFull(g, got); n != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
}
