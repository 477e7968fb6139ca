package kad

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
)

// singly counts the keys that peers are told of one by one.
type singly struct {
	pb.MessageSender
	told atomic.Int64
}

func (s *singly) SendMessage(ctx context.Context, to lpeer.ID, m *pb.Message) error {
	s.told.Add(1)
	return s.MessageSender.SendMessage(ctx, to, m)
}

// counting has every node but the first count the messages it is told by, and answer as many of them as are lost with an end of
// the stream.
func counting(all []*Locator, lost int64) (messages *atomic.Int64) {
	messages = new(atomic.Int64)
	for _, l := range all[1:] {
		l.budget *= 100 // what is found counts here, however busy the machine is
		records := listener{l.dht.ProviderStore()}
		l.host.SetStreamHandler(tellProtocol, func(s network.Stream) {
			if messages.Add(1) <= lost {
				s.Reset()
				return
			}
			records.serve(s)
		})
	}
	return messages
}

// found reports how many of the keys a node finds at the first one, and at nobody else.
func found(t *testing.T, all []*Locator, by *Locator, keys []cid.Key) (n int) {
	t.Helper()
	who, err := by.Find(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, ids := range who {
		if len(ids) == 1 && ids[0] == all[0].self {
			n++
		}
	}
	return n
}

// Many keys are told in one message a peer, and all of them are found.
func TestToldTogether(t *testing.T) {
	all := join(t, 3)
	keys := locatetest.Keys("together", 1000)
	first := all[0].teller
	alone := &singly{MessageSender: first.MessageSender}
	first.MessageSender = alone
	gathered := make(chan time.Time)
	first.after = func(time.Duration) <-chan time.Time { return gathered }
	messages := counting(all, 0)
	if err := all[0].Announce(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	until(t, "all keys wait for both peers", func() bool {
		first.mu.Lock()
		defer first.mu.Unlock()
		n := 0
		for _, l := range all[1:] {
			n += len(first.waiting[l.host.ID()])
		}
		return n == 2*len(keys)
	})
	close(gathered)
	settle(t, all)
	if single, n := alone.told.Load(), messages.Load(); single != 0 || n != 2 {
		t.Errorf("%d keys at two peers were told in %d messages and %d singly", len(keys), n, single)
	}
	if n := found(t, all, all[2], keys[:100]); n != 100 {
		t.Errorf("%d of 100 keys are found", n)
	}
}

// What is lost on its way is told again, each time later, and given up in the end.
func TestToldAgain(t *testing.T) {
	for _, c := range []struct {
		lost  int64
		waits []time.Duration
		found int
	}{
		{3, []time.Duration{gathering, time.Second, 2 * time.Second, 4 * time.Second}, 10},
		{100, []time.Duration{gathering, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}, 0},
	} {
		all := join(t, 2)
		keys := locatetest.Keys("lost", 10)
		gathered := make(chan time.Time)
		var mu sync.Mutex // guards waits
		var waits []time.Duration
		all[0].teller.after = func(d time.Duration) <-chan time.Time {
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, d)
			return gathered
		}
		messages := counting(all, c.lost)
		if err := all[0].Announce(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		until(t, "all keys wait", func() bool {
			all[0].teller.mu.Lock()
			defer all[0].teller.mu.Unlock()
			return len(all[0].teller.waiting[all[1].host.ID()]) == len(keys)
		})
		close(gathered)
		settle(t, all)
		if n := messages.Load(); !slices.Equal(waits, c.waits) || n != int64(len(c.waits)) {
			t.Errorf("%d lost: told %d times, after %v", c.lost, n, waits)
		}
		if n := found(t, all, all[1], keys); n != c.found {
			t.Errorf("%d lost: %d keys are found, want %d", c.lost, n, c.found)
		}
	}
}

// Half a message is not kept and not confirmed.
func TestHalfToldKept(t *testing.T) {
	l := join(t, 1)[0]
	for _, message := range [][]byte{{}, {0xff, 0xff}, {0, 1, 2, 3}} {
		var answer bytes.Buffer
		if err := (listener{l.dht.ProviderStore()}).keep(l.host.ID(), bytes.NewReader(message), &answer); err == nil || answer.Len() > 0 {
			t.Errorf("message %v was answered with %v", message, answer.Bytes())
		}
	}
}

// A peer that takes its time is told one message after the other, of everything.
func TestSlowPeerIsToldInTurn(t *testing.T) {
	all := join(t, 2)
	told, slow := all[0].teller, all[1]
	var open, most, took atomic.Int64
	taking := make(chan struct{})
	slow.host.SetStreamHandler(tellProtocol, func(s network.Stream) {
		most.Store(max(most.Load(), open.Add(1)))
		<-taking
		open.Add(-1)
		serve(s, func(from io.Reader, to io.Writer) error {
			keys, err := readKeys(from)
			took.Add(int64(len(keys)))
			to.Write([]byte{1})
			return err
		})
	})
	keys := locatetest.Keys("slow", 10)
	for i, hash := range hashes(keys) {
		if err := told.SendMessage(t.Context(), slow.host.ID(), pb.NewMessage(pb.Message_ADD_PROVIDER, hash, 0)); err != nil {
			t.Fatal(err)
		}
		if i < 5 { // longer than keys wait for others: each would go by itself
			time.Sleep(2 * gathering)
		}
	}
	close(taking)
	until(t, "everything is told", told.idle)
	if took.Load() != int64(len(keys)) || most.Load() != 1 {
		t.Errorf("%d keys of %d came, with %d messages at once", took.Load(), len(keys), most.Load())
	}
}
