package kad

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	datastore "github.com/ipfs/go-datastore"
	query "github.com/ipfs/go-datastore/query"
	libp2p "github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	lpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// names are peer ids of Ed25519 keys.
var names = Names{
	To: func(id peer.ID) lpeer.ID {
		key, err := crypto.UnmarshalEd25519PublicKey(id[:])
		if err != nil {
			panic(err)
		}
		out, err := lpeer.IDFromPublicKey(key)
		if err != nil {
			panic(err)
		}
		return out
	},
	From: func(id lpeer.ID) (peer.ID, error) {
		key, err := id.ExtractPublicKey()
		if err != nil {
			return peer.ID{}, err
		}
		raw, err := key.Raw()
		if err != nil || len(raw) != len(peer.ID{}) {
			return peer.ID{}, fmt.Errorf("no Ed25519 key: %w", err)
		}
		return peer.ID(raw), nil
	},
}

// join connects n nodes on loopback, each to each, as members are.
func join(t testing.TB, n int) []*Locator {
	t.Helper()
	var hosts []host.Host
	var all []*Locator
	for range n {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		// As in mesh/transport: of a port that is dialled from, too, two who dial each other at once have one connection of two callers.
		transport := libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport())
		h, err := libp2p.New(transport, libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(),
			libp2p.DisableMetrics(), libp2p.Ping(false), libp2p.ResourceManager(nil))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		l, err := New(h, names)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		for _, other := range hosts {
			if err := h.Connect(t.Context(), lpeer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
		hosts, all = append(hosts, h), append(all, l)
	}
	for _, l := range all {
		until(t, "nodes know each other", func() bool { return l.dht.RoutingTable().Size() >= min(n-1, BucketSize) })
	}
	if n > 1 {
		settle(t, all)
	}
	return all
}

// until polls, at most 30 s.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// settle waits until every node has told of everything it announced.
func settle(t testing.TB, all []*Locator) {
	t.Helper()
	for i, l := range all {
		quiet := 0 // a batch between the queue and a worker is in neither for a moment
		until(t, fmt.Sprintf("node %d has told", i), func() bool {
			s, err := l.provider.Stats(context.Background())
			if quiet++; err != nil || s.Connectivity.Status != "online" || s.Queues.PendingKeyProvides > 0 ||
				s.Queues.PendingRegionReprovides > 0 || s.Workers.Active > 0 || !l.teller.idle() {
				quiet = 0
			}
			return quiet == 3
		})
	}
}

func TestConformance(t *testing.T) {
	locatetest.Run(t, func(t *testing.T, ids []peer.ID) locatetest.World {
		all := join(t, len(ids))
		for _, l := range all {
			l.budget = 10 * time.Second // what is found counts here, however busy the machine is
		}
		w := locatetest.World{Settle: func(t *testing.T) { settle(t, all) }}
		for _, l := range all {
			w.Locators, w.IDs = append(w.Locators, l), append(w.IDs, l.self)
		}
		return w
	})
}

// The DHT is set up as meshes need it: everybody serves, under a protocol of our own, with small buckets and no values.
func TestSetUp(t *testing.T) {
	l := join(t, 1)[0]
	if mode, k := l.dht.Mode(), l.dht.BucketSize(); mode != dht.ModeServer || k != BucketSize || k < 8 {
		t.Errorf("mode %v, buckets of %d", mode, k)
	}
	if protocols := l.host.Mux().Protocols(); !slices.Contains(protocols, prefix+"/kad/1.0.0") || slices.Contains(protocols, "/ipfs/kad/1.0.0") {
		t.Errorf("it speaks %v", protocols)
	}
	if err := l.dht.PutValue(t.Context(), "/pk/x", []byte("x")); !errors.Is(err, routing.ErrNotSupported) {
		t.Errorf("a value is stored: %v", err)
	}
	if l.budget != 150*time.Millisecond || ProvideValidity != 30*time.Minute || concurrency != 10 {
		t.Errorf("a find takes %v, a record is kept %v, %d are asked at once", l.budget, ProvideValidity, concurrency)
	}
}

// A provider that says nothing when it is asked what it still has costs Budget, and is not named; others are.
func TestSilentProvider(t *testing.T) {
	all := join(t, 3)
	keys := locatetest.Keys("one", 1)
	for _, l := range all[1:] {
		if err := l.Announce(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, all)
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	all[1].host.SetStreamHandler(askProtocol, func(s network.Stream) { <-ended; s.Reset() })
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	until(t, "the one that answers is named", func() bool { // on a busy machine it may take longer than it has
		found, err := all[0].Find(within, keys)
		if err != nil || slices.Contains(found[0], all[1].self) {
			t.Fatalf("found %v, %v", found, err)
		}
		return len(found[0]) == 1 && found[0][0] == all[2].self
	})
}

// A node alone says that nobody can be asked; one that is asked for too much, or for half a key, answers nothing.
func TestAlone(t *testing.T) {
	l := join(t, 1)[0]
	keys := locatetest.Keys("one", 3)
	if _, err := l.Find(t.Context(), keys); err == nil {
		t.Error("a node alone found out")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Find(ctx, keys); err == nil {
		t.Error("a find after its end")
	}
	for _, question := range [][]byte{{}, {0xff, 0xff}, {0, 1, 2, 3}} {
		var answer bytes.Buffer
		if err := l.keeper.answer(bytes.NewReader(question), &answer); err == nil || answer.Len() > 0 {
			t.Errorf("question %v was answered with %v", question, answer.Bytes())
		}
	}
}

func FuzzQuestion(f *testing.F) {
	keys := locatetest.Keys("one", 2)
	k := newKeeper()
	k.add(keys)
	f.Add(append(append([]byte{0, 2}, keys[0][:]...), keys[1][:]...))
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, question []byte) {
		var answer bytes.Buffer
		if err := k.answer(bytes.NewReader(question), &answer); err == nil && answer.Len() != int(question[0])<<8|int(question[1]) {
			t.Errorf("%d bytes answer %v", answer.Len(), question)
		}
	})
}

// The store gives the records of one key, or all, forgets, and takes no more than it may.
func TestStore(t *testing.T) {
	s, ctx := newStore(), t.Context()
	for _, name := range []string{"/providers/A/1", "/providers/A/2", "/providers/AB/1"} {
		if err := s.Put(ctx, datastore.NewKey(name), []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	count := func(prefix string) int {
		r, err := s.Query(ctx, query.Query{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		all, _ := r.Rest()
		return len(all)
	}
	if a, all, none := count("/providers/A"), count("/providers/"), count("/providers/B"); a != 2 || all != 3 || none != 0 {
		t.Errorf("of one key %d, all %d, of another %d", a, all, none)
	}
	if size, err := s.GetSize(ctx, datastore.NewKey("/providers/A/1")); err != nil || size != len("/providers/A/1") {
		t.Errorf("size %d, %v", size, err)
	}
	for range 2 {
		if err := s.Delete(ctx, datastore.NewKey("/providers/A/1")); err != nil {
			t.Fatal(err)
		}
	}
	if has, _ := s.Has(ctx, datastore.NewKey("/providers/A/1")); has || s.count != 2 || count("/providers/A") != 1 {
		t.Errorf("has %v, %d records", has, s.count)
	}
	s.count = maxRecords
	if err := s.Put(ctx, datastore.NewKey("/providers/C/1"), nil); !errors.Is(err, errFull) || count("/providers/") != 2 {
		t.Errorf("one more than the most: %v, %d records", err, count("/providers/"))
	}
	if err := s.Put(ctx, datastore.NewKey("/providers/A/2"), []byte("again")); err != nil {
		t.Errorf("a record that is there is not renewed when there is no room: %v", err)
	}
}
