package lease

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate/wire"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// fakeStore is a node's blobs in a map. It is Blobs and, with the mesh, Content.
type fakeStore struct {
	mesh *fakeMesh

	mu   sync.Mutex // guards below
	data map[digest.Digest][]byte
	pins int
}

func (s *fakeStore) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]byte, len(ds))
	for i, d := range ds {
		if out[i] = s.data[d]; d.IsEmpty() {
			out[i] = []byte{}
		}
	}
	return out, nil
}

func (s *fakeStore) Missing(ctx context.Context, ds []digest.Digest) (missing []digest.Digest, err error) {
	data, err := s.GetBatch(ctx, ds)
	for i, d := range ds {
		if data[i] == nil {
			missing = append(missing, d)
		}
	}
	return missing, err
}

func (s *fakeStore) Put(_ context.Context, d digest.Digest, data []byte) error {
	if d.Function().Of(data) != d {
		return errors.New("corrupt")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[d] = data
	return nil
}

func (s *fakeStore) put(m proto.Message) digest.Digest {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return s.bytes(data)
}

func (s *fakeStore) bytes(data []byte) digest.Digest {
	d := digest.SHA256.Of(data)
	_ = s.Put(context.Background(), d, data)
	return d
}

func (s *fakeStore) Fetch(ctx context.Context, from peer.ID, ds []digest.Digest) error {
	data, err := s.mesh.nodes[from].store.GetBatch(ctx, ds)
	if err != nil {
		return err
	}
	var missing []digest.Digest
	for i, d := range ds {
		if data[i] == nil {
			missing = append(missing, d)
		} else if err := s.Put(ctx, d, data[i]); err != nil {
			return err
		}
	}
	if missing != nil {
		return &action.MissingError{Digests: missing}
	}
	return nil
}

func (s *fakeStore) Inputs(ctx context.Context, from peer.ID, a *action.Action) (int64, error) {
	return a.InputRoot.Size(), s.Fetch(ctx, from, []digest.Digest{a.InputRoot})
}

// Outputs fetches as long as the executor keeps them, as it must.
func (s *fakeStore) Outputs(ctx context.Context, from peer.ID, fn digest.Function, r *repb.ActionResult) error {
	if len(r.OutputFiles) > 0 && s.mesh.nodes[from].store.pinned() == 0 {
		return errors.New("the outputs are not pinned while they are fetched")
	}
	for _, f := range r.OutputFiles {
		d, err := digest.FromProto(fn, f.Digest)
		if err != nil {
			return err
		}
		if err := s.Fetch(ctx, from, []digest.Digest{d}); err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeStore) Pin(context.Context, digest.Function, *repb.ActionResult) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pins--
	}, nil
}

func (s *fakeStore) pinned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pins
}

// fakeRun hands each run at a node to the test.
type fakeRun struct {
	node   *fakeNode
	action *action.Action
	end    chan ending
	ctx    context.Context
}

type ending struct {
	outcome *flight.Outcome
	err     error
}

// done ends a run with one output file.
func (r *fakeRun) done(content string) {
	d := r.node.store.bytes([]byte(content))
	r.end <- ending{outcome: &flight.Outcome{Result: &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: d.Proto()}}}}}
}

// fakeNode is one node of a fakeMesh. As a flight.Executor it asks the test.
type fakeNode struct {
	id        peer.ID
	mesh      *fakeMesh
	store     *fakeStore
	executor  *Executor
	initiator *Initiator
	runs      chan *fakeRun
	instant   bool                // runs end at once, successfully
	broken    bool                // connections to it fail
	service   leasev1.LeaseServer // what it serves in place of its executor; nil: that
}

func (n *fakeNode) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	if n.instant {
		d := n.store.bytes([]byte("quick"))
		return &flight.Outcome{Result: &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: d.Proto()}}}}, nil
	}
	r := &fakeRun{node: n, action: a, end: make(chan ending, 1), ctx: ctx}
	select {
	case n.runs <- r:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case e := <-r.end:
		return e.outcome, e.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fakeMesh is nodes joined by gRPC in memory.
type fakeMesh struct {
	t       testing.TB
	nodes   map[peer.ID]*fakeNode
	mu      sync.Mutex // guards conns
	conns   map[[2]peer.ID]*grpc.ClientConn
	serving map[peer.ID]*wire.Pipe
	servers []*grpc.Server
}

func newMesh(t testing.TB) *fakeMesh {
	return &fakeMesh{t: t, nodes: map[peer.ID]*fakeNode{}, conns: map[[2]peer.ID]*grpc.ClientConn{}, serving: map[peer.ID]*wire.Pipe{}}
}

const callerKey = "caller-bin"

func callerOf(ctx context.Context) (peer.ID, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(callerKey); len(v) == 1 && len(v[0]) == len(peer.ID{}) {
		return peer.ID([]byte(v[0])), nil
	}
	return peer.ID{}, status.Error(codes.Unauthenticated, "who are you?")
}

// dialer is a node's Network.
type dialer struct {
	mesh *fakeMesh
	from peer.ID
}

func (d dialer) Control(_ context.Context, id peer.ID) (grpc.ClientConnInterface, error) {
	m := d.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes[id] == nil || m.nodes[id].broken {
		return nil, errors.New("no route")
	}
	key := [2]peer.ID{d.from, id}
	if m.conns[key] == nil {
		name := string(d.from[:])
		conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.serving[id].Dial(ctx) }),
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
				return invoke(metadata.AppendToOutgoingContext(ctx, callerKey, name), method, in, out, cc, o...)
			}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
				return stream(metadata.AppendToOutgoingContext(ctx, callerKey, name), desc, cc, method, o...)
			}))
		if err != nil {
			return nil, err
		}
		m.conns[key] = conn
	}
	return m.conns[key], nil
}

var machine = platform.Offer{OSFamily: "linux", ISA: []string{"x86-64"}, Cores: 2, MemoryBytes: 1 << 30, Fingerprint: "f1"}

// node adds a node with two slots; bend changes its options.
func (m *fakeMesh) node(n byte, bend ...func(*fakeNode, *InitiatorOptions)) *fakeNode {
	f := &fakeNode{id: peer.ID{n}, mesh: m, runs: make(chan *fakeRun, 1000)}
	f.store = &fakeStore{mesh: m, data: map[digest.Digest][]byte{}}
	o := InitiatorOptions{
		Self: f.id, Epoch: uint64(n) * 100, Run: f, Network: dialer{m, f.id}, Blobs: f.store, Content: f.store,
		Class: func(_ context.Context, a *action.Action) place.Class {
			if a.Platform.Local {
				return place.Local
			}
			return place.Fingerprinted
		},
	}
	for _, b := range bend {
		b(f, &o)
	}
	m.nodes[f.id] = f
	f.executor = NewExecutor(ExecutorOptions{
		Self: f.id, Book: NewBook(machine.Cores, machine.MemoryBytes, Options{Self: f.id, NewID: NewID}), Run: f, Blobs: f.store, Content: f.store,
		Match: func(r platform.Request) error { return r.Match(machine) }, Caller: callerOf, Status: codeOf,
		Changed: func() {
			if f.initiator != nil {
				f.initiator.Refresh()
			}
		},
	})
	o.Executor = f.executor
	f.initiator = NewInitiator(o, place.Peer{Name: fmt.Sprintf("n%d", n), Offer: machine, Speed: 1})
	server := grpc.NewServer()
	if f.service != nil {
		leasev1.RegisterLeaseServer(server, f.service)
	} else {
		f.executor.Register(server)
	}
	m.serving[f.id] = wire.NewPipe()
	m.servers = append(m.servers, server)
	go server.Serve(m.serving[f.id])
	return f
}

// meet tells every node of every other, with all slots free.
func (m *fakeMesh) meet() {
	for _, a := range m.nodes {
		for _, b := range m.nodes {
			if a != b {
				a.sees(b)
			}
		}
	}
}

// sees tells a what room b has now.
func (n *fakeNode) sees(b *fakeNode) {
	cores, bytes := b.executor.Free()
	n.initiator.Peer(place.Peer{ID: b.id, Name: "peer", Offer: machine, FreeCores: cores, FreeBytes: bytes, Speed: 1, At: time.Now()})
}

// close ends everything.
func (m *fakeMesh) close() {
	for _, n := range m.nodes {
		n.initiator.Close()
	}
	for _, n := range m.nodes {
		n.executor.Close()
	}
	for _, c := range m.conns {
		c.Close()
	}
	for _, s := range m.servers {
		s.Stop()
	}
}

// action stores an action at a node and decodes it.
func (n *fakeNode) action(name string, bend ...func(*repb.Action)) *action.Action {
	n.mesh.t.Helper()
	root := n.store.put(&repb.Directory{Files: []*repb.FileNode{{Name: name, Digest: digest.SHA256.Empty().Proto()}}})
	a := &repb.Action{CommandDigest: n.store.put(&repb.Command{Arguments: []string{name}}).Proto(), InputRootDigest: root.Proto()}
	for _, b := range bend {
		b(a)
	}
	decoded, err := action.Decode(context.Background(), n.store, n.store.put(a), action.Limits{})
	if err != nil {
		n.mesh.t.Fatal(err)
	}
	return decoded
}

// placed is an action under way.
type placed struct {
	outcome *flight.Outcome
	err     error
	done    chan struct{}
	cancel  context.CancelFunc
	said    atomic.Pointer[repb.ExecutedActionMetadata] // the newest that an executor told
}

// Output implements flight.Observer.
func (p *placed) Output(string, string) {}

// Metadata implements flight.Observer.
func (p *placed) Metadata(m *repb.ExecutedActionMetadata) { p.said.Store(m) }

// place has n place an action.
func (n *fakeNode) place(a *action.Action, bend ...func(*flight.Request)) *placed {
	r := flight.Request{Action: a.Digest, Meta: flight.Meta{Mnemonic: "M", Invocation: "i"}}
	for _, b := range bend {
		b(&r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &placed{done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(p.done)
		executor, release, err := n.initiator.Place(ctx, a, r)
		if err != nil {
			p.err = err
			return
		}
		p.outcome, p.err = executor.Execute(ctx, a, p)
		release()
	}()
	return p
}

// wait gives the outcome.
func (p *placed) wait() (*flight.Outcome, error) {
	<-p.done
	p.cancel()
	return p.outcome, p.err
}

// busy takes both slots of a node, until the function it gives is called.
func (n *fakeNode) busy() (free func()) {
	var ids []Claim
	for i := range 2 {
		r := Request{Caller: n.id, Action: digest.SHA256.Of([]byte{n.id[0], byte(i)}), Attempt: 1, Cores: 1, Alone: true}
		id, _, refusal := n.executor.reserve(r)
		if refusal != nil {
			n.mesh.t.Fatal(refusal.Reason)
		}
		ids = append(ids, Claim{Lease: id, Caller: n.id, Attempt: 1})
	}
	return func() {
		for _, c := range ids {
			n.executor.with(func(b *Book, now time.Time) { b.Cancel(now, c) })
		}
	}
}

func codeOf(err error) error {
	var invalid *action.InvalidError
	switch {
	case errors.As(err, &invalid):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
