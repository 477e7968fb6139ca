package lease

import (
	"math"
	"testing"
	"time"
)

const mib = 1 << 20

// asking is a request for so much memory.
func asking(bytes int64) func(*Request) {
	return func(r *Request) { r.MemoryBytes = bytes }
}

// TestMemoryOfOwner: a guest is refused, with the numbers, when less memory is free than what its owner keeps and the action asks
// for; what is kept is no bound for the owner's own actions.
func TestMemoryOfOwner(t *testing.T) {
	l := newLedger(t, 8)
	refused := func(bytes int64, want string) {
		t.Helper()
		if _, refusal := l.ask(ana, "refused", asking(bytes)); refusal == nil || refusal.Reason != want {
			t.Errorf("%d MiB: %+v, want %q", bytes/mib, refusal, want)
		}
	}
	l.lease(ana, "not measured", asking(mib))
	l.now = l.now.Add(time.Second)
	l.Memory(l.now, 1524*mib, 1024*mib)
	refused(500*mib+1, "only 1524 MiB of memory are free, of 1024 MiB for its owner and 500 MiB for the action")
	l.lease(self, "own", asking(1000*mib))
	l.now = l.now.Add(time.Second)
	l.Memory(l.now, 1524*mib, 1024*mib) // a look after it began shows what it uses
	l.lease(ana, "as much as there is", asking(500*mib))
	refused(2*mib, "only 1024 MiB of memory are free, of 1024 MiB for its owner and 2 MiB for the action")
}

// TestMemoryIsPromisedOnce: what was leased and what began since the last look is not free for another guest, though it is not
// used yet.
func TestMemoryIsPromisedOnce(t *testing.T) {
	l := newLedger(t, 8)
	l.Memory(l.now, 1524*mib, 1024*mib)
	l.now = l.now.Add(time.Second)
	first := l.lease(ana, "began", asking(200*mib))
	if _, refusal := l.ask(ben, "leased", asking(200*mib)); refusal != nil {
		t.Fatal(refusal.Reason)
	}
	const want = "only 1124 MiB of memory are free, of 1024 MiB for its owner and 101 MiB for the action"
	if _, refusal := l.ask(ben, "too much", asking(101*mib)); refusal == nil || refusal.Reason != want || refusal.FreeBytes != 0 {
		t.Errorf("%+v, want %q", refusal, want)
	}
	l.Finished(l.now, first.Lease)
	l.lease(ben, "in its place", asking(300*mib))
}

// TestFreeMemory: what guests are told is free is what they would get, in steps.
func TestFreeMemory(t *testing.T) {
	l := newLedger(t, 8)
	for _, c := range []struct{ available, reserve, want int64 }{
		{0, 1024 * mib, 8 << 30}, // not known
		{mib, 0, 8 << 30},        // never mind
		{64 << 30, 1024 * mib, 8 << 30},
		{1024*mib + 2*freeStep, 1024 * mib, 2 * freeStep},
		{1024*mib + 2*freeStep - 1, 1024 * mib, freeStep},
		{mib, 1024 * mib, 0},
	} {
		l.Memory(l.now, c.available, c.reserve)
		if _, got := l.Free(); got != c.want {
			t.Errorf("%d MiB available, %d kept: %d, want %d", c.available/mib, c.reserve/mib, got, c.want)
		}
	}
}

// TestTicketWaitsForMemory: a ticket for more memory than there is holds nobody up, and its turn comes when there is as much.
func TestTicketWaitsForMemory(t *testing.T) {
	l := newLedger(t, 4)
	l.Memory(l.now, 2048*mib, 1024*mib)
	l.Ticket(l.now, Ticket{Caller: ana, Invocation: "large", Cores: 1, MemoryBytes: 2048 * mib})
	for range 2 * maxBypass {
		l.Ticket(l.now, Ticket{Caller: ben, Invocation: "small", Cores: 1})
		for _, e := range l.Effects() {
			o := e.(*Offered)
			if o.Invocation != "small" {
				t.Fatalf("offered to %s", o.Invocation)
			}
			l.Pass(l.now, ben, o.Offer)
		}
	}
	if _, refusal := l.ask(ben, "small"); refusal != nil {
		t.Error(refusal.Reason)
	}
	l.Memory(l.now, 4096*mib, 1024*mib)
	if e := l.Effects(); len(e) != 1 || e[0].(*Offered).Invocation != "large" || e[0].(*Offered).FreeBytes != 3072*mib {
		t.Errorf("when there is as much: %v", e)
	}
	if _, refusal := l.ask(ben, "meanwhile", asking(1025*mib)); refusal == nil {
		t.Error("what is offered to one was given to another")
	}
}

// TestMemoryBeyondAllBounds: where nobody knows how much memory a machine has, a peer cannot ask for so much that sums overflow.
func TestMemoryBeyondAllBounds(t *testing.T) {
	l := &ledger{NewBook(8, 0, Options{Self: self, NewID: NewID}), t, epoch0}
	l.Memory(l.now, 1524*mib, 1024*mib)
	for bytes, want := range map[int64]string{
		math.MaxInt64: "malformed request",
		maxMemory:     "only 1524 MiB of memory are free, of 1024 MiB for its owner and 1073741824 MiB for the action",
	} {
		if _, refusal := l.ask(ana, "absurd", asking(bytes)); refusal == nil || refusal.Reason != want {
			t.Errorf("%d bytes: %+v, want %q", bytes, refusal, want)
		}
		l.Ticket(l.now, Ticket{Caller: ana, Invocation: "i", Cores: 1, MemoryBytes: bytes})
	}
	if n := l.Usage().Tickets; n != 1 {
		t.Errorf("%d tickets are kept, want that for %d bytes", n, maxMemory)
	}
}
