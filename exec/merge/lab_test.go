package merge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// lab is nodes that share one store of actions and call each other in memory, in a bubble of their own time.
type lab struct {
	t     testing.TB
	nodes []*node

	mu       sync.Mutex // guards all below
	blobs    map[digest.Digest][]byte
	finished map[string][]*node // by command: who ran it to its end
	delay    func() time.Duration
}

func newLab(t testing.TB, n int) *lab {
	l := &lab{t: t, blobs: map[digest.Digest][]byte{}, finished: map[string][]*node{}, delay: func() time.Duration { return time.Millisecond }}
	for i := range n {
		l.node(peer.ID{byte(i + 1)})
	}
	return l
}

// close ends everything; nobody may be left waiting.
func (l *lab) close() {
	for _, n := range l.nodes {
		n.table.Close()
	}
	for _, n := range l.nodes {
		n.merger.Close()
		if len(n.merger.live) != 0 || len(n.merger.boxes) != 0 || len(n.merger.waiting) != 0 || len(n.merger.asking) != 0 {
			l.t.Errorf("%s is left with %d runs, %d boxes, %d waits, %d questions", n.name(), len(n.merger.live), len(n.merger.boxes), len(n.merger.waiting), len(n.merger.asking))
		}
	}
}

func (l *lab) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([][]byte, len(ds))
	for i, d := range ds {
		if out[i] = l.blobs[d]; d.IsEmpty() {
			out[i] = []byte{}
		}
	}
	return out, nil
}

func (l *lab) Missing(context.Context, []digest.Digest) ([]digest.Digest, error) { return nil, nil }

func (l *lab) put(m proto.Message) digest.Digest {
	data, err := proto.Marshal(m)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := digest.SHA256.Of(data)
	l.blobs[d] = data
	return d
}

// action stores an action that takes a while.
func (l *lab) action(name string, takes time.Duration, bend ...func(*repb.Action)) digest.Digest {
	a := &repb.Action{CommandDigest: l.put(&repb.Command{Arguments: []string{name, takes.String()}}).Proto(), InputRootDigest: digest.SHA256.Empty().Proto()}
	for _, b := range bend {
		b(a)
	}
	return l.put(a)
}

// ended is who ran an action to its end.
func (l *lab) ended(name string) []*node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.finished[name])
}

// node is a table of flights with a Merger. It is its own executor, its cache, and the merger's results and network.
type node struct {
	lab    *lab
	id     peer.ID
	table  *flight.Table
	merger *Merger

	down chan struct{} // closed when nobody reaches it any more, and it nobody

	mu       sync.Mutex // guards all below
	stored   map[Key]*repb.ActionResult
	stopped  bool                // calls to it hang
	fails    bool                // actions end with an exit code there
	stuck    bool                // actions do not end there
	distrust bool                // it believes nobody
	private  bool                // it shares nothing
	known    place.Estimate      // of all its actions
	tells    int                 // calls of Tell to it
	awaits   int                 // calls of Await to it
	misses   int                 // keys it was asked for and knew nothing of
	lie      leasev1.MergeServer // what it serves in place of its merger
}

func (l *lab) node(id peer.ID) *node {
	n := &node{lab: l, id: id, down: make(chan struct{}), stored: map[Key]*repb.ActionResult{}}
	n.merger = New(Options{
		Self: id, Keeper: l.keeper, Network: n, Results: shared{n}, Caller: callerOf, Name: func(id peer.ID) string { return fmt.Sprint("n", id[0]) },
		Expect: n.expect, Missed: n.missed,
	})
	n.table = flight.New(flight.Options{
		Blobs: l, Executor: n, Results: n, Merger: n.merger, Status: func(err error) error { return status.Error(codes.Internal, err.Error()) }, Worker: n.name(),
		Abandon: 1000 * time.Hour,
	})
	l.nodes = append(l.nodes, n)
	return n
}

// missed counts what it was asked for in vain.
func (n *node) missed(_ peer.ID, keys int) { n.set(func(n *node) { n.misses += keys }) }

// expect is what is known of its actions.
func (n *node) expect(string) place.Estimate {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known
}

func (n *node) name() string { return fmt.Sprint("n", n.id[0]) }

// set changes what a node does.
func (n *node) set(change func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

// kill takes a node off the network for good.
func (n *node) kill() { close(n.down) }

// isDown reports whether a node was killed.
func (n *node) isDown() bool {
	select {
	case <-n.down:
		return true
	default:
		return false
	}
}

// reachable are the nodes that are not down.
func (l *lab) reachable() (all []*node) {
	for _, n := range l.nodes {
		if !n.isDown() {
			all = append(all, n)
		}
	}
	return all
}

// keeper spreads keys over who is reachable.
func (l *lab) keeper(k Key) peer.ID {
	var best peer.ID
	var most uint64
	for _, n := range l.reachable() {
		h := fnv.New64a()
		h.Write(k[:])
		h.Write(n.id[:])
		if sum := h.Sum64(); best.IsZero() || sum > most {
			best, most = n.id, sum
		}
	}
	return best
}

func keyOf(d digest.Digest) Key { return sha256.Sum256([]byte(d.String())) }

// Execute implements flight.Executor.
func (n *node) Execute(ctx context.Context, a *action.Action, _ flight.Observer) (*flight.Outcome, error) {
	takes, err := time.ParseDuration(a.Arguments[1])
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	fails := n.fails
	if n.stuck {
		takes = 1000 * time.Hour
	}
	n.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	n.lab.mu.Lock()
	n.lab.finished[a.Arguments[0]] = append(n.lab.finished[a.Arguments[0]], n)
	n.lab.mu.Unlock()
	r := &repb.ActionResult{StdoutRaw: []byte(a.Arguments[0]), ExecutionMetadata: &repb.ExecutedActionMetadata{Worker: n.name()}}
	if fails {
		r.ExitCode = 1
	}
	return &flight.Outcome{Result: r}, nil
}

// Get implements flight.Results.
func (n *node) Get(_ context.Context, a *action.Action, _ flight.Meta) (*repb.ActionResult, string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.stored[keyOf(a.Digest)]; r != nil {
		return r, "", nil
	}
	return nil, "", flight.ErrNotCached
}

// Put implements flight.Results.
func (n *node) Put(_ context.Context, a *action.Action, r *repb.ActionResult, _ bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stored[keyOf(a.Digest)] = r
	return nil
}

// shared is a node's results as its merger sees them. A receipt is a result.
type shared struct{ *node }

// Key implements Results.
func (s shared) Key(_ context.Context, a *action.Action) (Key, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return keyOf(a.Digest), !s.private
}

// Receipts implements Results.
func (s shared) Receipts(k Key) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored[k] == nil {
		return nil, nil
	}
	raw, err := proto.Marshal(s.stored[k])
	return [][]byte{raw}, err
}

// Adopt implements Results.
func (s shared) Adopt(ctx context.Context, a *action.Action, _ peer.ID, receipts [][]byte) (*repb.ActionResult, error) {
	r := new(repb.ActionResult)
	if err := proto.Unmarshal(receipts[0], r); err != nil {
		return nil, err
	}
	s.mu.Lock()
	distrust := s.distrust
	s.mu.Unlock()
	if distrust || string(r.StdoutRaw) != a.Arguments[0] {
		return nil, errors.New("not believed")
	}
	return r, s.Put(ctx, a, r, true)
}

// callerKey is under which a context has who calls.
type callerKey struct{}

func callerOf(ctx context.Context) (peer.ID, error) {
	id, known := ctx.Value(callerKey{}).(peer.ID)
	if !known {
		return id, status.Error(codes.Unauthenticated, "who are you?")
	}
	return id, nil
}

// errUnreachable is what calling a node gives that is down.
var errUnreachable = errors.New("no route")

// Control implements Network.
func (n *node) Control(_ context.Context, id peer.ID) (grpc.ClientConnInterface, error) {
	for _, to := range n.lab.reachable() {
		if to.id == id {
			return &conn{from: n, to: to}, nil
		}
	}
	return nil, errUnreachable
}

// conn calls one node from another.
type conn struct {
	grpc.ClientConnInterface // streams, of which there are none
	from, to                 *node
}

// Invoke implements grpc.ClientConnInterface.
func (c *conn) Invoke(ctx context.Context, _ string, in, out any, _ ...grpc.CallOption) error {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, callerKey{}, c.from.id))
	defer cancel()
	time.Sleep(c.from.lab.delay())
	c.to.mu.Lock()
	var server leasev1.MergeServer = c.to.merger
	if c.to.lie != nil {
		server = c.to.lie
	}
	hangs := c.to.stopped
	if _, tells := in.(*leasev1.TellRequest); tells {
		c.to.tells++
	} else {
		c.to.awaits++
	}
	c.to.mu.Unlock()
	answered := make(chan error, 1)
	go func() { // ends with ctx
		if hangs {
			<-ctx.Done()
			answered <- ctx.Err()
			return
		}
		var answer proto.Message
		var err error
		switch in := in.(type) {
		case *leasev1.TellRequest:
			answer, err = server.Tell(ctx, in)
		case *leasev1.AwaitRequest:
			answer, err = server.Await(ctx, in)
		}
		if err == nil {
			proto.Merge(out.(proto.Message), answer)
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		return err
	case <-c.from.down:
	case <-c.to.down:
	}
	cancel()
	<-answered
	return errUnreachable
}

// asked is one client's execution.
type asked struct {
	flight *flight.Flight
	began  time.Time
}

// asks starts an execution at a node.
func (n *node) asks(d digest.Digest, bend ...func(*flight.Request)) *asked {
	n.lab.t.Helper()
	r := flight.Request{Action: d, Meta: flight.Meta{Mnemonic: "M"}}
	for _, b := range bend {
		b(&r)
	}
	f, err := n.table.Execute(context.Background(), r)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return &asked{f, time.Now()}
}

// answer waits for the response.
func (a *asked) answer(t testing.TB) *repb.ExecuteResponse {
	t.Helper()
	for version := uint64(0); ; {
		s, err := a.flight.Wait(context.Background(), version)
		if err != nil {
			t.Fatal(err)
		}
		if s.Done() {
			return s.Response
		}
		version = s.Version
	}
}

// merged reports whether an answer is another node's.
func merged(r *repb.ExecuteResponse) bool { return strings.HasPrefix(r.Message, "merged with ") }
