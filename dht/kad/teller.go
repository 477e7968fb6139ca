package kad

import (
	"context"
	"io"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
)

// tellProtocol says of keys that who sends them has them: one byte back when they are kept.
const tellProtocol = protocol.ID("/buildmesh/announce/1")

const (
	// gathering is how long a key waits for others that the same peer is told of.
	gathering = 20 * time.Millisecond
	// tellWithin bounds what is sent at once.
	tellWithin = 10 * time.Second
	// retryAfter is how long keys wait that were lost on their way, and twice as long each time; after so many attempts they
	// are left for the next reprovide.
	retryAfter = time.Second
	attempts   = 5
)

// teller sends the DHT's messages. The DHT has one message for each key that a peer is told of; those to a peer that is
// connected are gathered to one of many keys. What is lost with a connection is told again a few times, and then with everything
// else. Safe for concurrent use; end it with close.
type teller struct {
	pb.MessageSender
	caller caller
	after  func(time.Duration) <-chan time.Time // time.After
	ctx    context.Context                      // ends with close
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex             // guards waiting
	waiting map[lpeer.ID][]cid.Key // of every peer in it a goroutine sends what waits, which may be nothing
}

func newTeller(c caller, m pb.MessageSender) *teller {
	t := &teller{MessageSender: m, caller: c, after: time.After, waiting: map[lpeer.ID][]cid.Key{}}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// close gives up what waits and what is under way.
func (t *teller) close() {
	t.mu.Lock()
	t.cancel() // no goroutine begins after this
	t.mu.Unlock()
	t.ended.Wait()
}

// SendMessage implements pb.MessageSender.
func (t *teller) SendMessage(ctx context.Context, to lpeer.ID, m *pb.Message) error {
	var key cid.Key
	head := len(m.Key) - len(key)
	if m.Type != pb.Message_ADD_PROVIDER || head < 0 || t.caller.host.Network().Connectedness(to) != network.Connected {
		return t.MessageSender.SendMessage(ctx, to, m)
	}
	copy(key[:], m.Key[head:])
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if _, telling := t.waiting[to]; !telling {
		t.ended.Go(func() { t.tell(to) })
	}
	t.waiting[to] = append(t.waiting[to], key)
	return nil
}

// tell sends a peer what waits for it, when more had time to come, until nothing waits any more. It is one message after
// the other: a slow peer is not told of more than it takes.
func (t *teller) tell(to lpeer.ID) {
	wait := gathering
	for attempt, left := 1, true; left; {
		select {
		case <-t.after(wait):
		case <-t.ctx.Done():
			return
		}
		t.mu.Lock()
		keys := t.waiting[to]
		t.waiting[to] = nil
		t.mu.Unlock()
		lost := t.send(to, keys)
		if len(lost) == 0 || attempt == attempts {
			lost, attempt, wait = nil, 1, gathering
		} else {
			wait = retryAfter << (attempt - 1)
			attempt++
		}
		t.mu.Lock()
		t.waiting[to] = append(lost, t.waiting[to]...)
		if left = len(t.waiting[to]) > 0; !left {
			delete(t.waiting, to)
		}
		t.mu.Unlock()
	}
}

// send tells a peer of keys and gives those that were lost on their way.
func (t *teller) send(to lpeer.ID, keys []cid.Key) (lost []cid.Key) {
	ctx, cancel := context.WithTimeout(t.ctx, tellWithin)
	defer cancel()
	_ = locate.Batches(keys, func(at int, piece []cid.Key) error {
		_, err := t.caller.exchange(ctx, to, tellProtocol, piece, 1)
		if err != nil {
			lost = keys[at:]
		}
		return err
	})
	return lost
}

// idle reports whether nothing waits and nothing is under way.
func (t *teller) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting) == 0
}

// listener keeps what others tell.
type listener struct{ records records.ProviderStore }

// serve answers one stream.
func (l listener) serve(s network.Stream) {
	serve(s, func(from io.Reader, to io.Writer) error {
		return l.keep(s.Conn().RemotePeer(), from, to)
	})
}

// keep reads what a peer says to have.
func (l listener) keep(who lpeer.ID, from io.Reader, to io.Writer) error {
	keys, err := readKeys(from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, hash := range hashes(keys) {
		if err := l.records.AddProvider(ctx, hash, lpeer.AddrInfo{ID: who}); err != nil {
			return err
		}
	}
	_, err = to.Write([]byte{1})
	return err
}
