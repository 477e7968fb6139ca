package power

import (
	"slices"
	"testing"
	"time"
)

// This machine's own readers work or say why they do not, and none of them hangs.
func TestMachineReaders(t *testing.T) {
	readers, closeAll := MachineReaders(nil)
	var names []string
	for _, r := range readers {
		names = append(names, r.Name())
	}
	if want := []string{"battery", "memory", "heat", "processors", "user", "metered network"}; !slices.Equal(names, want) {
		t.Errorf("it reads %q, want %q", names, want)
	}
	g, err := New(Options{Dir: t.TempDir(), Policy: Policy{Reserve: 1}, Readers: readers})
	if err != nil {
		t.Fatal(err)
	}
	f, faults := g.Facts()
	if f.Available == 0 {
		t.Errorf("no memory is free: %+v, %v", f, faults)
	}
	for _, name := range []string{"battery", "memory", "heat", "processors"} {
		if faults[name] != nil {
			t.Errorf("%s: %v", name, faults[name])
		}
	}
	if err := closeAll(); err != nil {
		t.Error(err)
	}
	b := &systemBus{retry: time.Now().Add(time.Hour), failed: errTest}
	if _, err := b.connect(); err != errTest {
		t.Errorf("a bus that was not there a moment ago was asked again: %v", err)
	}
}

var errTest = errTesting("not there")

type errTesting string

func (e errTesting) Error() string { return string(e) }
