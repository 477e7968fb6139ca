package execution

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// fakeBlobs is a store in a map.
type fakeBlobs struct {
	mu      sync.Mutex // guards all below
	content map[digest.Digest][]byte
	err     error
}

func (f *fakeBlobs) GetBatch(_ context.Context, ds []digest.Digest) ([][]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([][]byte, len(ds))
	for i, d := range ds {
		if out[i] = f.content[d]; d.IsEmpty() {
			out[i] = []byte{}
		}
	}
	return out, f.err
}

func (f *fakeBlobs) Missing(_ context.Context, ds []digest.Digest) (missing []digest.Digest, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range ds {
		if f.content[d] == nil && !d.IsEmpty() {
			missing = append(missing, d)
		}
	}
	return missing, f.err
}

func (f *fakeBlobs) put(data []byte) digest.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.SHA256.Of(data)
	f.content[d] = data
	return d
}

func (f *fakeBlobs) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// fakeExecutor hands each run to the test.
type fakeExecutor struct{ runs chan *running }

type running struct {
	ctx      context.Context
	action   *action.Action
	observer flight.Observer
	end      chan ending
}

type ending struct {
	outcome *flight.Outcome
	err     error
}

func (f *fakeExecutor) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	r := &running{ctx: ctx, action: a, observer: o, end: make(chan ending, 1)}
	select {
	case f.runs <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case e := <-r.end:
		return e.outcome, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fakeFollower names the files it is shown.
type fakeFollower struct{}

func (fakeFollower) Follow(path string) (string, func()) { return "node/logstreams" + path, func() {} }

// lab is both services behind gRPC, with a fake executor.
type lab struct {
	blobs      *fakeBlobs
	executor   *fakeExecutor
	flights    *flight.Table
	execution  repb.ExecutionClient
	operations longrunningpb.OperationsClient
}

func newLab(t *testing.T, bend func(*flight.Options, *Options)) *lab {
	t.Helper()
	l := &lab{blobs: &fakeBlobs{content: map[digest.Digest][]byte{}}, executor: &fakeExecutor{runs: make(chan *running)}}
	inner := flight.Options{Blobs: l.blobs, Executor: l.executor, Streams: fakeFollower{}, Status: reapi.Status}
	outer := Options{Blobs: l.blobs}
	if bend != nil {
		bend(&inner, &outer)
	}
	l.flights = flight.New(inner)
	outer.Flights = l.flights
	server := grpc.NewServer()
	Register(server, outer)
	listener := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:lab", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		l.flights.Close()
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	l.execution, l.operations = repb.NewExecutionClient(conn), longrunningpb.NewOperationsClient(conn)
	return l
}

// request stores an action that runs name, and asks for its execution.
func (l *lab) request(t *testing.T, name string) *repb.ExecuteRequest {
	t.Helper()
	marshal := func(m proto.Message) []byte {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	command := l.blobs.put(marshal(&repb.Command{Arguments: []string{name}}))
	a := l.blobs.put(marshal(&repb.Action{CommandDigest: command.Proto(), InputRootDigest: digest.SHA256.Empty().Proto()}))
	return &repb.ExecuteRequest{ActionDigest: a.Proto()}
}

// receiver is a stream of operations.
type receiver interface {
	Recv() (*longrunningpb.Operation, error)
}

func (l *lab) execute(t *testing.T, ctx context.Context, q *repb.ExecuteRequest) receiver {
	t.Helper()
	stream, err := l.execution.Execute(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// next receives one operation and takes it apart.
func next(t *testing.T, from receiver) (*longrunningpb.Operation, *repb.ExecuteOperationMetadata) {
	t.Helper()
	op, err := from.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return op, metadataOf(t, op)
}

func metadataOf(t *testing.T, op *longrunningpb.Operation) *repb.ExecuteOperationMetadata {
	t.Helper()
	m := &repb.ExecuteOperationMetadata{}
	if err := op.Metadata.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	if op.GetError() != nil {
		t.Errorf("Operation.error is set: %v", op.GetError())
	}
	if op.Done != (m.Stage == repb.ExecutionStage_COMPLETED) {
		t.Errorf("done %v at stage %v", op.Done, m.Stage)
	}
	return m
}

// last receives until the end of the stream and gives the response.
func last(t *testing.T, from receiver) (*longrunningpb.Operation, *repb.ExecuteResponse) {
	t.Helper()
	var op *longrunningpb.Operation
	for {
		received, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return op, responseOf(t, op)
		}
		if err != nil {
			t.Fatal(err)
		}
		if op.GetDone() {
			t.Error("an operation follows the one that is done")
		}
		metadataOf(t, received)
		op = received
	}
}

func responseOf(t *testing.T, op *longrunningpb.Operation) *repb.ExecuteResponse {
	t.Helper()
	response := &repb.ExecuteResponse{}
	if err := op.GetResponse().UnmarshalTo(response); err != nil {
		t.Fatal(err)
	}
	return response
}

// refused gives the code that a call or stream ends with.
func refused(t *testing.T, from receiver) codes.Code {
	t.Helper()
	_, err := from.Recv()
	return status.Code(err)
}
