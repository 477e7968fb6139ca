package merge

import (
	"context"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// When it is worth it, and for how long.
const (
	// Worth is what an action must take as a rule to be merged. Telling costs two members some 0.2 ms of processor together, a
	// five hundredth of that (BenchmarkMerging in node); what is shorter may be over before an answer comes by Wi-Fi.
	Worth = 100 * time.Millisecond
	// Young is for how long a run is given up for one that began before.
	Young = time.Second
	// PollFor is how long a member that is asked waits for the end of its run before it answers.
	PollFor = 2 * time.Second
	// Slack is how much longer than that its answer may take.
	Slack = 3 * time.Second

	// Others may take patienceTimes what such actions took here at worst, within bounds; unknownPatience where nothing is
	// known of them.
	patienceTimes   = 3
	leastPatience   = 5 * time.Second
	unknownPatience = 30 * time.Second
	mostPatience    = 10 * time.Minute
	// adoptFor bounds how long bringing a result here may take.
	adoptFor = 30 * time.Second
)

// Network gives connections to peers.
type Network interface {
	// Control is for small calls that must not wait behind a transfer.
	Control(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error)
}

// Results is the action results that are shared with the mesh.
type Results interface {
	// Key gives what the result of an action is known by; false: it is shared with nobody.
	Key(ctx context.Context, a *action.Action) (Key, bool)
	// Receipts are what is known here about a result.
	Receipts(k Key) ([][]byte, error)
	// Adopt gives a result that a peer told of: believed by the receipts, complete, and kept here. from has its outputs.
	Adopt(ctx context.Context, a *action.Action, from peer.ID, receipts [][]byte) (*repb.ActionResult, error)
}

// Options is what a Merger works with. All must be set.
type Options struct {
	Self    peer.ID
	Keeper  func(k Key) peer.ID // the member that keeps the board for a key: the same for all members
	Network Network
	Results Results
	Expect  func(mnemonic string) place.Estimate       // what such actions take
	Caller  func(ctx context.Context) (peer.ID, error) // who calls, from the connection; an error, a gRPC status, refuses the call
	Missed  func(caller peer.ID, keys int)             // told of how many keys of a call nothing was known: who guesses has many
	Name    func(id peer.ID) string                    // of a peer, for people
}

// Merger is a node's part. It is a flight.Merger, and serves the boards that this node keeps. Make it with New, end it with
// Close.
type Merger struct {
	leasev1.UnimplementedMergeServer
	options Options
	ctx     context.Context // of every call and of renewing; ended by Close
	stop    context.CancelFunc
	calls   sync.WaitGroup

	mu      sync.Mutex // guards all below, and the boxes
	board   *Board
	live    map[Key]*running
	boxes   map[peer.ID]*outbox
	asking  map[peer.ID]int // calls of Await being served
	waiting map[*running]context.CancelCauseFunc
	closed  bool
}

// New makes a Merger.
func New(o Options) *Merger {
	m := &Merger{
		options: o, board: NewBoard(), live: map[Key]*running{}, boxes: map[peer.ID]*outbox{},
		asking: map[peer.ID]int{}, waiting: map[*running]context.CancelCauseFunc{},
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.calls.Go(m.renew)
	return m
}

// Close ends every call and waits.
func (m *Merger) Close() {
	m.mu.Lock()
	m.closed = true
	m.stop()
	m.mu.Unlock()
	m.calls.Wait()
}

// Gone notes that a peer left: nobody waits for it any more.
func (m *Merger) Gone(id peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.board.Drop(id)
	for w, cancel := range m.waiting {
		if w.by == id {
			cancel(errGone)
		}
	}
}

// renew says again what runs still, and forgets what others do not say again.
func (m *Merger) renew() {
	tick := time.NewTicker(TTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		now := time.Now()
		m.board.Expire(now)
		var again []notice
		for k, w := range m.live {
			if now.Sub(w.began) > TTL/4 {
				again = append(again, notice{key: k, kind: leasev1.Notice_KIND_BEGUN, despite: w.despite})
			}
		}
		m.mu.Unlock()
		for _, n := range again {
			m.tell(n)
		}
	}
}
