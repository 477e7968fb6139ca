package kad

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"

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

// Many keys are told in few messages, and all of them are found.
func TestToldTogether(t *testing.T) {
	all := join(t, 3)
	keys := locatetest.Keys("together", 1000)
	alone := &singly{MessageSender: all[0].teller.MessageSender}
	all[0].teller.MessageSender = alone
	var messages atomic.Int64
	for _, l := range all[1:] {
		l.budget *= 100 // what is found counts here, however busy the machine is
		records := listener{l.dht.ProviderStore()}
		l.host.SetStreamHandler(tellProtocol, func(s network.Stream) {
			messages.Add(1)
			records.serve(s)
		})
	}
	if err := all[0].Announce(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	settle(t, all)
	if n := alone.told.Load(); n > 0 {
		t.Errorf("%d keys were told one by one", n)
	}
	if n := messages.Load(); n < 2 || n > int64(len(keys)) {
		t.Errorf("%d messages for %d keys at two peers", n, len(keys))
	}
	found, err := all[2].Find(t.Context(), keys[:100])
	if err != nil {
		t.Fatal(err)
	}
	for i, ids := range found {
		if len(ids) != 1 || ids[0] != all[0].self {
			t.Errorf("key %d is at %v", i, ids)
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
