package facts

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	rpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/roster"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

const (
	// sendEvery is the least time between two messages of one side.
	sendEvery = 250 * time.Millisecond
	// patience is how long the higher peer id waits for the lower one to open the stream.
	patience = 5 * time.Second
	// firstPause and longestPause bound the time between two attempts to open one.
	firstPause   = time.Second
	longestPause = 30 * time.Second
	// maxMessage bounds a message.
	maxMessage = 64 << 10
)

// Options are what an Exchange is made from.
type Options struct {
	Self   peer.ID
	Roster *roster.Roster
	Board  *Board
	Book   *Book
	// Dial gives the control connection to a member.
	Dial func(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error)
	// Caller tells who calls.
	Caller func(ctx context.Context) (peer.ID, bool)
	Seen   func(peer.ID) // a message came
	Broke  func(peer.ID) // a stream broke
	Gossip func() uint16 // the port this node gossips on, told to who pings; nil: not told
}

// Exchange carries facts between this node and all members alive. It implements meshv1.FactsServiceServer;
// make it with New, end it with Close.
type Exchange struct {
	meshv1.UnimplementedFactsServiceServer
	o Options

	mu      sync.Mutex // guards all below
	ended   bool
	streams map[peer.ID]int // open ones, either way
	bell    bell            // of streams
	follows map[peer.ID]context.CancelFunc

	stop    context.CancelFunc
	ctx     context.Context // of every follower; it ends with Close
	running sync.WaitGroup
}

// New begins to follow the members of the roster. Register it with the control server.
func New(o Options) *Exchange {
	e := &Exchange{o: o, streams: make(map[peer.ID]int), follows: make(map[peer.ID]context.CancelFunc)}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.running.Go(e.watch)
	return e
}

// Close ends every stream.
func (e *Exchange) Close() {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	e.stop()
	e.running.Wait()
}

// watch keeps one follower for every member that may be reached.
func (e *Exchange) watch() {
	for version := uint64(0); ; {
		s, err := e.o.Roster.Next(e.ctx, version)
		if err != nil {
			return
		}
		version = s.Version
		e.mu.Lock()
		gone := make(map[peer.ID]bool)
		for id := range e.follows {
			gone[id] = true
		}
		for _, m := range s.Members {
			if m.State != roster.Alive && m.State != roster.Suspect {
				continue
			}
			delete(gone, m.ID)
			if e.follows[m.ID] == nil {
				ctx, cancel := context.WithCancel(e.ctx)
				e.follows[m.ID] = cancel
				e.running.Go(func() { e.follow(ctx, m.ID) })
			}
		}
		for id := range gone {
			e.follows[id]()
			delete(e.follows, id)
		}
		e.mu.Unlock()
	}
}

// follow keeps a stream to one member until ctx ends.
func (e *Exchange) follow(ctx context.Context, id peer.ID) {
	pause := firstPause
	for ctx.Err() == nil {
		wait := time.Duration(0)
		if bytes.Compare(e.o.Self[:], id[:]) > 0 {
			wait = patience
		}
		if !e.unserved(ctx, id, wait) {
			continue
		}
		began := time.Now()
		e.open(ctx, id)
		if time.Since(began) > longestPause {
			pause = firstPause
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
		}
		pause = min(2*pause, longestPause)
	}
}

// unserved waits until a member has had no stream for a while, and reports whether that is so; false when ctx
// ended, or a stream was opened meanwhile and has ended.
func (e *Exchange) unserved(ctx context.Context, id peer.ID, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for served := false; ; {
		e.mu.Lock()
		open, rung := e.streams[id] > 0, e.bell.wait()
		e.mu.Unlock()
		if served && !open {
			return false
		}
		served = served || open
		late := timer.C
		if served {
			late = nil
		}
		select {
		case <-late:
			return true
		case <-rung:
		case <-ctx.Done():
			return false
		}
	}
}

// open opens a stream and serves it until it breaks.
func (e *Exchange) open(ctx context.Context, id peer.ID) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := e.o.Dial(ctx, id)
	if err == nil {
		var stream grpc.BidiStreamingClient[meshv1.Facts, meshv1.Facts]
		stream, err = meshv1.NewFactsServiceClient(conn).Exchange(ctx, grpc.MaxCallRecvMsgSize(maxMessage))
		if err == nil {
			err = e.serve(stream.Context(), cancel, id, stream)
		}
	}
	if err != nil && e.ctx.Err() == nil {
		e.o.Broke(id)
	}
}

// Exchange implements meshv1.FactsServiceServer.
func (e *Exchange) Exchange(stream grpc.BidiStreamingServer[meshv1.Facts, meshv1.Facts]) error {
	id, known := e.o.Caller(stream.Context())
	if !known {
		return status.Error(codes.Unauthenticated, "who calls?")
	}
	e.mu.Lock()
	if e.ended {
		e.mu.Unlock()
		return status.Error(codes.Unavailable, "this node goes")
	}
	e.running.Add(1)
	e.mu.Unlock()
	defer e.running.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	unhook := context.AfterFunc(e.ctx, cancel)
	defer unhook()
	if err := e.serve(ctx, cancel, id, stream); err != nil && e.ctx.Err() == nil {
		e.o.Broke(id)
	}
	return nil
}

// Ping implements meshv1.FactsServiceServer.
func (e *Exchange) Ping(context.Context, *meshv1.PingRequest) (*meshv1.PingResponse, error) {
	answer := &meshv1.PingResponse{ClockUnixMilli: time.Now().UnixMilli()}
	if e.o.Gossip != nil {
		answer.GossipPort = uint32(e.o.Gossip())
	}
	return answer, nil
}

// stream is either end of an exchange.
type stream interface {
	Send(*meshv1.Facts) error
	Recv() (*meshv1.Facts, error)
}

// serve sends and takes in facts until the stream breaks, a message makes no sense, or ctx ends; the reason
// is the error.
func (e *Exchange) serve(ctx context.Context, cancel context.CancelFunc, id peer.ID, s stream) error {
	e.count(id, 1)
	defer e.count(id, -1)
	ended := make(chan error, 2)
	var sending sync.WaitGroup
	sending.Go(func() {
		ended <- e.send(ctx, s)
		cancel()
	})
	// Not waited for here: a server's Recv ends with the call, which is when this has returned.
	e.running.Go(func() { ended <- e.receive(id, s) })
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	cancel()
	sending.Wait()
	return err
}

// send sends this node's facts, now and when they change.
func (e *Exchange) send(ctx context.Context, s stream) error {
	for version := uint64(0); ; {
		f, now, err := e.o.Board.Next(ctx, version)
		if err != nil {
			return err
		}
		version = now
		if err := s.Send(f.Proto(time.Now())); err != nil {
			return err
		}
		select {
		case <-time.After(sendEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// receive takes in a member's facts.
func (e *Exchange) receive(id peer.ID, s stream) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		f, err := Parse(m)
		if err != nil {
			return err
		}
		e.mu.Lock()
		open := e.streams[id] > 0
		if open { // else a late one of a stream that has ended
			e.o.Book.note(id, f, time.Now())
		}
		e.mu.Unlock()
		if open {
			e.o.Seen(id)
		}
	}
}

// count notes that a stream was opened or has ended; with the last one the facts go.
func (e *Exchange) count(id peer.ID, by int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams[id] += by
	if e.streams[id] == 0 {
		delete(e.streams, id)
		e.o.Book.forget(id)
	}
	e.bell.ring()
}

// Connected reports whether facts flow between this node and a member.
func (e *Exchange) Connected(id peer.ID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.streams[id] > 0
}

// Pong is a member's sign of life.
type Pong struct {
	Clock  time.Time  // what its clock shows
	Gossip uint16     // the port it gossips on; 0: not told
	At     netip.Addr // where it is, by the connection; the zero Addr: not known
}

// Ping asks a member for a sign of life.
func Ping(ctx context.Context, conn grpc.ClientConnInterface) (Pong, error) {
	var from rpcpeer.Peer
	answer, err := meshv1.NewFactsServiceClient(conn).Ping(ctx, &meshv1.PingRequest{}, grpc.Peer(&from))
	if err != nil {
		return Pong{}, status.Convert(err).Err()
	}
	pong := Pong{Clock: time.UnixMilli(answer.ClockUnixMilli)}
	if answer.GossipPort <= math.MaxUint16 {
		pong.Gossip = uint16(answer.GossipPort)
	}
	if from.Addr != nil {
		if at, err := netip.ParseAddrPort(from.Addr.String()); err == nil {
			pong.At = at.Addr().Unmap()
		}
	}
	return pong, nil
}
