package merge

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// Bounds of telling.
const (
	// maxTogether is how many notices travel in one message.
	maxTogether = 256
	// maxBox is how many wait for one keeper; further ones are lost: what they are about runs by itself.
	maxBox = 4096
	// tellTimeout bounds one call.
	tellTimeout = 2 * time.Second
)

// notice is what a keeper is told.
type notice struct {
	key     Key
	kind    leasev1.Notice_Kind
	despite peer.ID
	run     *running // hears the answer; nil: nobody does
}

// outbox gathers the notices for one keeper: the first goes at once, those that come while it is under way go together when
// it returns.
type outbox struct {
	waiting []notice
	calling bool
}

// tell has the keeper of a notice's key told, in the order of the calls.
func (m *Merger) tell(n notice) {
	keeper := m.options.Keeper(n.key)
	if keeper == m.options.Self {
		m.mu.Lock()
		earlier := m.note(m.options.Self, n)
		m.mu.Unlock()
		if n.run != nil {
			n.run.answered(earlier)
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if keeper.IsZero() || m.closed {
		return
	}
	box := m.boxes[keeper]
	if box == nil {
		box = &outbox{}
		m.boxes[keeper] = box
	}
	if len(box.waiting) >= maxBox {
		return
	}
	box.waiting = append(box.waiting, n)
	if !box.calling {
		box.calling = true
		m.calls.Go(func() { m.empty(keeper, box) })
	}
}

// empty makes calls to one keeper until nothing waits.
func (m *Merger) empty(keeper peer.ID, box *outbox) {
	for {
		m.mu.Lock()
		batch := box.waiting[:min(len(box.waiting), maxTogether)]
		box.waiting = slices.Clone(box.waiting[len(batch):])
		if len(batch) == 0 {
			delete(m.boxes, keeper)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		earlier, err := m.call(keeper, batch)
		if err != nil {
			continue // what was to be told is lost, and runs by itself
		}
		for i, n := range batch {
			if n.run != nil && len(earlier[i]) == len(peer.ID{}) {
				n.run.answered(peer.ID(earlier[i]))
			}
		}
	}
}

// errShort means that a keeper left questions unanswered.
var errShort = errors.New("the keeper of the board answered another number of notices")

// call tells a keeper some notices.
func (m *Merger) call(keeper peer.ID, batch []notice) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(m.ctx, tellTimeout)
	defer cancel()
	conn, err := m.options.Network.Control(ctx, keeper)
	if err != nil {
		return nil, err
	}
	q := &leasev1.TellRequest{}
	for _, n := range batch {
		one := &leasev1.Notice{Key: n.key[:], Kind: n.kind}
		if !n.despite.IsZero() {
			one.Despite = n.despite[:]
		}
		q.Notices = append(q.Notices, one)
	}
	answer, err := leasev1.NewMergeClient(conn).Tell(ctx, q)
	if err == nil && len(answer.Earlier) != len(batch) {
		err = errShort
	}
	return answer.GetEarlier(), err
}
