package merge

import (
	"bytes"
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// encoded is a message as it comes over the wire.
func encoded(f *testing.F, m proto.Message) []byte {
	f.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return data
}

// from is the context of a call by a peer.
func from(id peer.ID) context.Context {
	return context.WithValue(context.Background(), callerKey{}, id)
}

// FuzzTell: whatever a peer tells, it is refused as a whole or heard as a whole, and what it says of others is not heard.
func FuzzTell(f *testing.F) {
	key, id := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{3}, 32)
	for _, notices := range [][]*leasev1.Notice{
		{{Key: key, Kind: leasev1.Notice_KIND_BEGUN}},
		{{Key: key, Kind: leasev1.Notice_KIND_BEGUN, Despite: id}, {Key: key, Kind: leasev1.Notice_KIND_MADE}},
		{{Key: key, Kind: leasev1.Notice_KIND_ENDED}, {Key: key}},
		{{Key: key[1:], Kind: leasev1.Notice_KIND_BEGUN}},
		{{Key: key, Kind: leasev1.Notice_KIND_BEGUN, Despite: id[1:]}},
		make([]*leasev1.Notice, maxTogether+1),
	} {
		f.Add(encoded(f, &leasev1.TellRequest{Notices: notices}))
	}
	m := New(Options{Self: ana, Caller: callerOf, Missed: func(peer.ID, int) {}})
	f.Cleanup(m.Close)
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &leasev1.TellRequest{}
		if proto.Unmarshal(data, in) != nil {
			return
		}
		m.mu.Lock()
		m.board = NewBoard()
		m.mu.Unlock()
		answer, err := m.Tell(from(ben), in)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument || len(m.board.notes) != 0 {
				t.Fatalf("%v, and %d notices are heard", err, len(m.board.notes))
			}
			return
		}
		if len(answer.Earlier) != len(in.Notices) || len(m.board.notes) > len(in.Notices) {
			t.Fatalf("%d answers and %d notices for %d", len(answer.Earlier), len(m.board.notes), len(in.Notices))
		}
		for i, earlier := range answer.Earlier {
			if len(earlier) != 0 {
				t.Fatalf("%d: %x began before", i, earlier)
			}
		}
		for k, n := range m.board.notes {
			if n.by != ben {
				t.Fatalf("%x is noted for %x", k, n.by)
			}
		}
	})
}

// FuzzAwait: whatever a peer asks for that does not run here and has no receipts, it is told at once that there is nothing.
func FuzzAwait(f *testing.F) {
	f.Add(encoded(f, &leasev1.AwaitRequest{Key: bytes.Repeat([]byte{7}, 32)}))
	f.Add(encoded(f, &leasev1.AwaitRequest{Key: []byte{7}}))
	f.Add([]byte{})
	l := &lab{t: f}
	n := l.node(ana)
	f.Cleanup(l.close)
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &leasev1.AwaitRequest{}
		if proto.Unmarshal(data, in) != nil {
			return
		}
		answer, err := n.merger.Await(from(ben), in)
		if err != nil && (status.Code(err) != codes.InvalidArgument || len(in.Key) == len(Key{})) || err == nil && (answer.Running || len(answer.Receipts) > 0) {
			t.Fatalf("%v, %v", answer, err)
		}
	})
}

// wire is a network on which everybody answers every call with the same bytes.
type wire struct {
	grpc.ClientConnInterface // streams, of which there are none
	answer                   []byte
}

// Control implements Network.
func (w *wire) Control(context.Context, peer.ID) (grpc.ClientConnInterface, error) { return w, nil }

// Invoke implements grpc.ClientConnInterface.
func (w *wire) Invoke(_ context.Context, _ string, _, out any, _ ...grpc.CallOption) error {
	return proto.Unmarshal(w.answer, out.(proto.Message))
}

// FuzzEarlier: whatever the keeper of a board answers, a run is given up for another peer or for nobody.
func FuzzEarlier(f *testing.F) {
	id := bytes.Repeat([]byte{3}, 32)
	for _, earlier := range [][][]byte{{id}, {ana[:]}, {{}}, {id, id}, {id[1:]}, {bytes.Repeat(id, 2)}, {}} {
		f.Add(encoded(f, &leasev1.TellResponse{Earlier: earlier}))
	}
	w := &wire{}
	m := &Merger{ // without renewing, so that its calls can be waited for
		options: Options{Self: ana, Network: w, Keeper: func(Key) peer.ID { return ben }}, ctx: context.Background(),
		live: map[Key]*running{}, boxes: map[peer.ID]*outbox{},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w.answer = data
		r := &running{merger: m, key: Key{7}, patience: leastPatience}
		given := false
		r.Running(func() { given = true })
		m.calls.Wait()
		if given != !r.by.IsZero() || r.by == ana {
			t.Fatalf("given up: %v, for %x", given, r.by)
		}
		r.halt()
	})
}
