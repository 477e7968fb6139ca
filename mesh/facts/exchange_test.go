package facts

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// world is members that can call each other.
type world struct {
	t     *testing.T
	mu    sync.Mutex // guards all below
	ends  map[peer.ID]*end
	deaf  map[peer.ID]bool // nobody can call these
	calls map[[2]peer.ID]int
}

// end is one member.
type end struct {
	id       peer.ID
	roster   *roster.Roster
	board    Board
	book     Book
	exchange *Exchange
	server   *grpc.Server
	listener *bufconn.Listener

	mu          sync.Mutex // guards the two below
	seen, broke map[peer.ID]int
}

func newWorld(t *testing.T) *world {
	return &world{t: t, ends: make(map[peer.ID]*end), deaf: make(map[peer.ID]bool), calls: make(map[[2]peer.ID]int)}
}

// add makes a member that runs until the test ends.
func (w *world) add(id peer.ID, f Facts) *end {
	w.t.Helper()
	e := &end{id: id, roster: roster.Open("", id, func(err error) { w.t.Error(err) }), seen: make(map[peer.ID]int), broke: make(map[peer.ID]int)}
	e.board.Set(f)
	count := func(in map[peer.ID]int) func(peer.ID) {
		return func(id peer.ID) {
			e.mu.Lock()
			defer e.mu.Unlock()
			in[id]++
		}
	}
	e.exchange = New(Options{Self: id, Roster: e.roster, Board: &e.board, Book: &e.book, Seen: count(e.seen), Broke: count(e.broke),
		Dial: func(ctx context.Context, to peer.ID) (grpc.ClientConnInterface, error) { return w.dial(id, to) },
		Caller: func(ctx context.Context) (peer.ID, bool) {
			md, _ := metadata.FromIncomingContext(ctx)
			if len(md["caller"]) != 1 {
				return peer.ID{}, false
			}
			id, err := peer.Parse(md["caller"][0])
			return id, err == nil
		},
	})
	e.server, e.listener = grpc.NewServer(), bufconn.Listen(1<<20)
	meshv1.RegisterFactsServiceServer(e.server, e.exchange)
	var serving sync.WaitGroup
	serving.Go(func() { _ = e.server.Serve(e.listener) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[id] = e
	w.t.Cleanup(func() {
		e.exchange.Close()
		e.server.Stop()
		serving.Wait()
		if err := e.roster.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return e
}

// dial gives a connection on which from is the caller.
func (w *world) dial(from, to peer.ID) (grpc.ClientConnInterface, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[[2]peer.ID{from, to}]++
	e := w.ends[to]
	if e == nil || w.deaf[to] {
		return nil, errors.New("connection refused")
	}
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.listener.DialContext(ctx) }),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, s grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return s(metadata.AppendToOutgoingContext(ctx, "caller", from.String()), d, c, method, o...)
		}))
	if err == nil {
		w.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// meet lets two members know of each other.
func meet(a, b *end) {
	a.roster.ClaimAlive(roster.Member{ID: b.id, Boot: "a"})
	b.roster.ClaimAlive(roster.Member{ID: a.id, Boot: "a"})
}

// until waits for a claim.
func until(t *testing.T, claim string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", claim)
		}
	}
}

// knows reports that a has heard from b, and that it is in this state.
func knows(a, b *end, state State) func() bool {
	return func() bool {
		h, ok := a.book.Get(b.id)
		return ok && h.State == state
	}
}

func TestExchange(t *testing.T) {
	w := newWorld(t)
	low, high := w.add(peer.ID{1}, Facts{State: Ready, Cores: 8}), w.add(peer.ID{2}, Facts{State: Paused, Reason: "on battery"})
	meet(low, high)
	until(t, "low knows high", knows(low, high, Paused))
	until(t, "high knows low", knows(high, low, Ready))
	if h, _ := low.book.Get(high.id); h.Reason != "on battery" || h.Skew < -time.Minute || h.Skew > time.Minute {
		t.Errorf("%+v", h)
	}
	high.board.Set(Facts{State: Ready})
	until(t, "low knows that high is ready", knows(low, high, Ready))
	for i := range 100 {
		low.board.Set(Facts{State: Ready, Cores: 8, CoresFree: float64(i) / 100})
	}
	low.board.Set(Facts{State: Draining})
	until(t, "high knows the last of many", knows(high, low, Draining))
	high.mu.Lock()
	if n := high.seen[low.id]; n < 2 || n > 10 {
		t.Errorf("%d messages for one change and a hundred in haste", n)
	}
	high.mu.Unlock()
	w.mu.Lock()
	if w.calls[[2]peer.ID{high.id, low.id}] != 0 || w.calls[[2]peer.ID{low.id, high.id}] != 1 {
		t.Errorf("calls %v: one stream serves both, and the lower id opens it", w.calls)
	}
	w.mu.Unlock()
	low.roster.ClaimGone(high.id, "a", true)
	until(t, "who has left is not in the book", func() bool { _, ok := low.book.Get(high.id); return !ok })
}

// TestHalfOpen: the lower id cannot call the higher; after a while the higher one does.
func TestHalfOpen(t *testing.T) {
	w := newWorld(t)
	low, high := w.add(peer.ID{1}, Facts{State: Ready}), w.add(peer.ID{2}, Facts{State: Ready})
	w.deaf[high.id] = true
	meet(low, high)
	until(t, "low knows high", knows(low, high, Ready))
	until(t, "high knows low", knows(high, low, Ready))
	low.mu.Lock()
	defer low.mu.Unlock()
	if low.broke[high.id] == 0 {
		t.Error("an attempt that failed raised no doubt")
	}
}

// TestBreak: a member that goes is doubted at once, and out of the book.
func TestBreak(t *testing.T) {
	w := newWorld(t)
	low, high := w.add(peer.ID{1}, Facts{State: Ready}), w.add(peer.ID{2}, Facts{State: Ready})
	meet(low, high)
	until(t, "both know", func() bool { return knows(low, high, Ready)() && knows(high, low, Ready)() })
	high.exchange.Close()
	high.server.Stop()
	until(t, "low doubts", func() bool { low.mu.Lock(); defer low.mu.Unlock(); return low.broke[high.id] > 0 })
	until(t, "the book is empty", func() bool { _, ok := low.book.Get(high.id); return !ok })
	if low.exchange.Connected(high.id) {
		t.Error("still connected")
	}
}

// TestLiar sends facts that make no sense: the stream ends, and nothing is kept.
func TestLiar(t *testing.T) {
	w := newWorld(t)
	victim := w.add(peer.ID{1}, Facts{State: Ready})
	conn, err := w.dial(peer.ID{9}, victim.id)
	if err != nil {
		t.Fatal(err)
	}
	s, err := meshv1.NewFactsServiceClient(conn).Exchange(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&meshv1.Facts{CoresMilli: 1, CoresFreeMilli: 2}); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.Recv()
	}
	if _, ok := victim.book.Get(peer.ID{9}); ok {
		t.Error("nonsense was kept")
	}
	if _, err := Ping(t.Context(), conn); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func TestBook(t *testing.T) {
	var b Book
	ctx, cancel := context.WithCancel(t.Context())
	b.note(peer.ID{1}, laptop, laptop.Clock.Add(-time.Hour))
	all, version, err := b.Next(ctx, 0)
	if err != nil || all[peer.ID{1}].Skew != time.Hour {
		t.Fatalf("%+v, %v", all, err)
	}
	b.forget(peer.ID{2}) // nobody
	b.note(peer.ID{1}, Facts{}, laptop.Clock)
	if all, version, err = b.Next(ctx, version); err != nil || all[peer.ID{1}].Skew != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	b.forget(peer.ID{1})
	if all, version, err = b.Next(ctx, version); err != nil || len(all) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	cancel()
	if _, _, err := b.Next(ctx, version); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
