package merge

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// maxAsking is how many calls of Await of one peer are served at once.
const maxAsking = 4096

// Register adds the service to what peers may call.
func (m *Merger) Register(to grpc.ServiceRegistrar) { leasev1.RegisterMergeServer(to, m) }

// Tell implements leasev1.MergeServer.
func (m *Merger) Tell(ctx context.Context, in *leasev1.TellRequest) (*leasev1.TellResponse, error) {
	caller, err := m.options.Caller(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.Notices) > maxTogether {
		return nil, status.Errorf(codes.InvalidArgument, "more than %d notices", maxTogether)
	}
	notices := make([]notice, len(in.Notices))
	for i, one := range in.Notices {
		if notices[i], err = noticeFrom(one); err != nil {
			return nil, err
		}
	}
	answer := &leasev1.TellResponse{Earlier: make([][]byte, len(notices))}
	missed := 0
	m.mu.Lock()
	for i, n := range notices {
		if earlier := m.note(caller, n); !earlier.IsZero() {
			answer.Earlier[i] = earlier[:]
		} else if n.kind == leasev1.Notice_KIND_BEGUN {
			missed++
		}
	}
	m.mu.Unlock()
	m.options.Missed(caller, missed)
	return answer, nil
}

// noticeFrom reads a notice. Errors are gRPC statuses.
func noticeFrom(in *leasev1.Notice) (n notice, err error) {
	if n.key, err = keyFrom(in.GetKey()); err != nil {
		return n, err
	}
	switch n.kind = in.Kind; n.kind {
	case leasev1.Notice_KIND_BEGUN, leasev1.Notice_KIND_MADE, leasev1.Notice_KIND_ENDED:
	default:
		return n, status.Errorf(codes.InvalidArgument, "a notice of kind %d", n.kind)
	}
	switch len(in.Despite) {
	case 0:
	case len(peer.ID{}):
		n.despite = peer.ID(in.Despite)
	default:
		return n, status.Errorf(codes.InvalidArgument, "a peer id of %d bytes", len(in.Despite))
	}
	return n, nil
}

func keyFrom(raw []byte) (k Key, err error) {
	if len(raw) != len(k) {
		return k, status.Errorf(codes.InvalidArgument, "a key of %d bytes", len(raw))
	}
	return Key(raw), nil
}

// note puts a peer's word on the board. m.mu must be held.
func (m *Merger) note(by peer.ID, n notice) (earlier peer.ID) {
	now := time.Now()
	if n.kind == leasev1.Notice_KIND_BEGUN {
		return m.board.Begin(now, by, n.key, n.despite)
	}
	m.board.End(now, by, n.key, n.kind == leasev1.Notice_KIND_MADE)
	return peer.ID{}
}

// Await implements leasev1.MergeServer.
func (m *Merger) Await(ctx context.Context, in *leasev1.AwaitRequest) (*leasev1.AwaitResponse, error) {
	caller, err := m.options.Caller(ctx)
	if err != nil {
		return nil, err
	}
	k, err := keyFrom(in.Key)
	if err != nil {
		return nil, err
	}
	if !m.enter(caller) {
		return nil, status.Error(codes.ResourceExhausted, "too many questions at once")
	}
	defer m.leave(caller)
	if over := m.runs(k); over != nil {
		wait := time.NewTimer(PollFor)
		defer wait.Stop()
		select {
		case <-over:
		case <-wait.C:
			return &leasev1.AwaitResponse{Running: true}, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	receipts, err := m.options.Results.Receipts(k)
	if err != nil {
		return nil, status.Error(codes.Unavailable, "the receipts cannot be read")
	}
	if len(receipts) == 0 {
		m.options.Missed(caller, 1)
	}
	return &leasev1.AwaitResponse{Receipts: receipts}, nil
}

// runs gives a channel that is closed when the action of a key does not run here any more; nil: it does not.
func (m *Merger) runs(k Key) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.live[k]; w != nil {
		return w.over
	}
	return nil
}

// enter counts a call of Await, unless there are too many of its caller.
func (m *Merger) enter(caller peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asking[caller] >= maxAsking {
		return false
	}
	m.asking[caller]++
	return true
}

func (m *Merger) leave(caller peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asking[caller]--; m.asking[caller] == 0 {
		delete(m.asking, caller)
	}
}
